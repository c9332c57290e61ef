"""The panel's words in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Language = Literal["en", "zh"]

_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    # the frame
    "title": ("Sandbox console", "沙箱控制台"),
    "intro": (
        "The outside world, simulated. No real money moves here.",
        "模拟的外部世界，这里不会动用真实资金。",
    ),
    "other_language": ("中文", "English"),
    "all_parties": ("All parties", "全部机构"),
    "parties": ("Simulated parties", "模拟机构"),
    "refresh": ("Refresh", "刷新"),
    "refused": ("That cannot be done.", "无法执行该操作。"),
    "elsewhere": (
        "This page takes no orders from other sites. Open the console itself and try again.",
        "本页面不接受来自其他站点的请求，请直接打开控制台后重试。",
    ),
    "nothing_there": ("There is no such page.", "页面不存在。"),
    # the clock
    "clock": ("Clock", "时钟"),
    "clock_says": (
        "The sandbox's time is {now}, {ahead} s ahead of real time.",
        "沙箱时间 {now}，比实际时间快 {ahead} 秒。",
    ),
    "clock_hint": (
        "What becomes due happens at once. The clock never goes back.",
        "到期事项会立即发生；时钟不能回拨。",
    ),
    "forward": ("Forward", "快进"),
    "minute": ("1 minute", "1 分钟"),
    "hour": ("1 hour", "1 小时"),
    "day": ("1 day", "1 天"),
    "seconds": ("Seconds", "秒数"),
    # trades
    "trades": ("Trades", "交易"),
    "no_trades": (
        "No trade yet. Place an order, and it is listed here.",
        "暂无交易，下单后显示在此。",
    ),
    "no_match": ("No trade's number begins so.", "没有以此开头的交易号。"),
    "trades_count": ("{all} trades, {open} can still be paid", "共 {all} 笔，{open} 笔待支付"),
    "newest": ("The newest {most} are shown.", "仅显示最新 {most} 笔。"),
    "entries_count": ("{all} transactions", "共 {all} 笔"),
    "find": ("Number begins with", "单号开头"),
    "search": ("Find", "查找"),
    "pay": ("Pay", "付款"),
    "decline": ("Decline", "拒绝付款"),
    "abandon": ("Walk away", "放弃"),
    # payment codes
    "codes": ("Payment codes", "付款码"),
    "codes_hint": (
        "What a customer shows at the till. A code serves once and lives for 60 seconds.",
        "顾客在收银台出示的付款码，仅可使用一次，60 秒内有效。",
    ),
    "behaviour": ("The customer", "顾客行为"),
    "behaviour.pay": ("pays at once", "直接付款"),
    "behaviour.ask": ("is asked for a password, and waits", "等待输入密码"),
    "behaviour.ask_then_pay": ("types the password after 5 seconds", "5 秒后输入密码"),
    "behaviour.ask_forever": ("never types the password", "始终不输入密码"),
    "behaviour.decline": ("has too little money", "余额不足"),
    "behaviour.cancel": ("cancels after 5 seconds", "5 秒后取消"),
    "make_code": ("Make a code", "生成付款码"),
    "no_codes": ("No payment code yet.", "暂无付款码。"),
    "code_fresh": ("fresh", "可用"),
    "code_old": ("expired", "已过期"),
    "code_used": ("used for {number}", "已用于 {number}"),
    # notifications
    "callbacks": ("Notifications", "通知"),
    "no_callbacks": ("No notification yet.", "暂无通知。"),
    "hold": ("Hold new notifications", "拦截新通知"),
    "release": ("Let new notifications go", "放行新通知"),
    "is_holding": (
        "New notifications are held until you send them.",
        "新通知已被拦截，需手动发送。",
    ),
    "is_not_holding": ("New notifications go out at once.", "新通知将立即发送。"),
    "send": ("Send now", "立即发送"),
    "again": ("Send again", "重新发送"),
    "lose": ("Lose", "丢弃"),
    "double": ("Send twice", "发送两次"),
    "late": ("1 minute late", "延迟 1 分钟"),
    "tries": ("tried: {tries}", "已尝试 {tries} 次"),
    "next_try": ("next at {at}", "下次 {at}"),
    "held": ("held", "已拦截"),
    # faults
    "faults": ("Faults", "故障"),
    "no_faults": ("No fault is armed. All goes well.", "未设置故障，一切正常。"),
    "arm": ("Arm a fault", "设置故障"),
    "what_fails": ("What goes wrong", "故障类型"),
    "argument": ("Detail (seconds, fen, count)", "参数（秒、分、次数）"),
    "for_number": ("For this number only", "仅限此单号"),
    "any_number": ("any number", "任意单号"),
    "times": ("How many times (-1: always)", "次数（-1 为始终）"),
    "left": ("{left} left", "剩余 {left} 次"),
    "always": ("always", "始终"),
    "disarm": ("Disarm", "取消"),
    # bills
    "bill": ("Bill", "账单"),
    "bill_hint": (
        "A day's bill is ready the next morning at nine. Made here, it is given out at once.",
        "账单通常于次日 9 点生成；在此生成后可立即下载。",
    ),
    "bill_day": ("Day", "日期"),
    "make_bill": ("Make the bill now", "立即生成账单"),
    "no_bill": ("This party has no bill.", "该机构没有账单。"),
    # other matters
    "matters": ("Refunds and other matters", "退款及其他事项"),
    "entries": ("Transactions", "交易"),
    "no_entries": ("No transaction yet.", "暂无交易。"),
    "no_matters": ("Nothing else yet.", "暂无其他事项。"),
    "kind.refund": ("Refund", "退款"),
    "kind.transfer": ("Payout", "转账"),
    "kind.agreement": ("Agreement", "签约协议"),
    "kind.split": ("Shares", "分账"),
    "kind.held": ("Held in processing", "处理中"),
    "kind.payment": ("Bank payment", "银行付款"),
    "kind.purchase": ("Purchase", "消费"),
    "kind.cancel": ("Cancellation", "消费撤销"),
    "kind.authorise": ("Pre-authorisation", "预授权"),
    "kind.void": ("Pre-authorisation voided", "预授权撤销"),
    "kind.capture": ("Completion", "预授权完成"),
    "choice.done": ("Done", "成功"),
    "choice.abnormal": ("Abnormal", "异常"),
    "choice.closed": ("Closed", "关闭"),
    "choice.confirm": ("Confirm", "确认收款"),
    "choice.fail": ("Fail", "失败"),
    "choice.failed": ("Failed", "失败"),
    "choice.success": ("Succeed", "成功"),
    "choice.refund": ("Send back", "退回"),
    "choice.sign": ("Sign", "签约"),
    "choice.end": ("End", "解约"),
    "choice.empty": ("Empty the purse", "清空余额"),
    "choice.fill": ("Fill the purse", "补足余额"),
    "choice.pay": ("Let it pay", "允许扣款"),
    "choice.decline": ("Let it decline", "扣款失败"),
    "choice.settle": ("Settle", "入账"),
    "choice.reject": ("Reject", "拒绝"),
    "choice.return": ("Send back", "退汇"),
    "tools": ("Further", "其他操作"),
    "tool.rotate-certificate": ("Change the certificate", "更换证书"),
    "tool.next-certificate": (
        "Change the certificate, next step: announced, signing, alone",
        "更换平台证书，下一步：公布、启用、旧证书停用",
    ),
    "tool.rotate": ("Change the certificate", "更换证书"),
    "tool.hang-up": ("Drop every connection", "断开全部连接"),
    # states
    "state.offered": ("offered", "待扫码"),
    "state.waiting": ("waiting", "待支付"),
    "state.asking": ("password asked", "待输密码"),
    "state.queued": ("waiting", "待发送"),
    "state.paid": ("paid", "已支付"),
    "state.closed": ("closed", "已关闭"),
    "state.reversed": ("reversed", "已撤销"),
    "state.failed": ("failed", "失败"),
    "state.processing": ("processing", "处理中"),
    "state.done": ("done", "成功"),
    "state.abnormal": ("abnormal", "异常"),
    "state.delivered": ("delivered", "已送达"),
    "state.gave_up": ("given up", "已放弃"),
    "state.lost": ("lost", "已丢失"),
    "variant.forged": ("forged", "伪造"),
    "variant.signtest": ("signature probe", "验签探测"),
    "mode.qr": ("code scanned", "扫码"),
    "mode.payment_code": ("code shown", "付款码"),
    "mode.in_app": ("page in the app", "应用内页面"),
    "mode.web": ("web page", "电脑网页"),
    "mode.h5": ("phone's browser", "手机网页"),
    "mode.app": ("app", "App"),
    "mode.agreement": ("under an agreement", "代扣"),
    "mode.card": ("card", "银行卡"),
    "about.payment": ("payment", "支付"),
    "about.refund": ("refund", "退款"),
    "about.agreement": ("agreement", "签约"),
    "about.entrust": ("agreement", "签约"),
    "about.profitsharing": ("shares", "分账"),
    "about.split": ("shares", "分账"),
    "about.mch_payment": ("payout", "转账"),
    "about.transfer": ("payout", "转账"),
    "about.probe": ("signature probe", "验签探测"),
    # what was done
    "did.clock": ("The clock has moved.", "时钟已快进。"),
    "did.trade": ("Done; see the trade below.", "已完成，见下方交易。"),
    "did.code": ("A payment code was made.", "付款码已生成。"),
    "did.fault": ("The fault is armed.", "故障已设置。"),
    "did.disarm": ("The fault is disarmed.", "故障已取消。"),
    "did.callback": ("Done; see the notification below.", "已完成，见下方通知。"),
    "did.hold": ("Noted.", "已设置。"),
    "did.bill": ("The bill is made.", "账单已生成。"),
    "did.matter": ("Decided.", "已处理。"),
    "did.tool": ("Done.", "已完成。"),
    # parties
    "party.alipay": ("Alipay", "支付宝"),
    "party.bank": ("The bank", "银行"),
    "party.cards": ("Card host", "银行卡主机"),
    "party.unionpay": ("UnionPay", "银联"),
    "party.unionpay_qra": ("UnionPay aggregated QR", "银联聚合码 Qra"),
    "party.wechat": ("WeChat Pay", "微信支付"),
}

_POINTS: Final[Mapping[str, tuple[str, str]]] = {
    "pay": ("Paying", "支付"),
    "query": ("Asking about an order", "查询订单"),
    "close": ("Closing or reversing", "关单或撤销"),
    "refund": ("Refunding", "退款"),
    "refund_query": ("Asking about a refund", "查询退款"),
    "callback": ("Notification", "通知"),
    "bill": ("Bill", "账单"),
    "split": ("Sharing", "分账"),
    "split_query": ("Asking about shares", "查询分账"),
    "split_return": ("Taking a share back", "分账回退"),
    "transfer": ("Payout", "转账"),
    "transfer_query": ("Asking about a payout", "查询转账"),
    "agreement": ("Agreement", "签约"),
    "agreement_query": ("Asking about an agreement", "查询签约"),
    "receiver": ("Receiver of shares", "分账接收方"),
    "parking": ("Parking", "停车"),
    "identify": ("Who opened the page", "网页授权"),
    "capture": ("Completion", "预授权完成"),
    "void": ("Voiding", "预授权撤销"),
    "totals": ("Totals", "对账总计"),
    "sign_in": ("Sign-in", "签到"),
}
_HOW: Final[Mapping[str, tuple[str, str]]] = {
    "time_out": ("no answer", "无应答"),
    "http_500": ("error 500", "500 错误"),
    "http_502": ("error 502", "502 错误"),
    "http_503": ("error 503", "503 错误"),
    "system_error": ("system error", "系统异常"),
    "bad_signature": ("answer wrongly signed", "应答签名错误"),
    "wrong_amount": ("wrong amount", "金额错误"),
    "reset_mid_frame": ("connection cut in mid-answer", "应答中途断开"),
    "http_429": ("too many requests", "请求过多"),
    "reset": ("connection reset", "连接重置"),
    "slow": ("answered late", "应答缓慢"),
    "stale": ("says it is not paid yet", "查询结果滞后"),
    "processing": ("stays in processing", "一直处理中"),
    "abnormal": ("ends as abnormal", "退款异常"),
    "not_enough": ("too little money", "余额不足"),
    "code": ("answered with a code", "返回指定错误码"),
    "doubled_answer": ("answered twice", "应答两次"),
    "paid_just_before": ("the customer pays first", "关单前已付款"),
    "late_success": ("a success arrives later", "关单后成功"),
    "retry": ("asks for a retry", "要求重试"),
    "lost": ("lost", "丢失"),
    "doubled": ("comes twice", "重复"),
    "late": ("late", "延迟"),
    "forged": ("a forged copy comes along", "附带伪造通知"),
    "reordered": ("out of order", "乱序"),
    "signtest": ("a signature probe comes along", "附带验签探测"),
    "drop_row": ("a row is missing", "缺少一行"),
    "late_row": ("a row comes with the next day's bill", "一行延至次日账单"),
    "extra_row": ("a row too many", "多出一行"),
    "wrong_fee": ("wrong fee", "手续费错误"),
    "truncate": ("file cut off", "文件不完整"),
    "share_failed": ("a share fails", "一笔分账失败"),
    "share_fails": ("the first share fails", "首笔分账失败"),
    "stuck": ("stays open until told", "停留待处理"),
    "failed": ("fails", "失败"),
    "fail": ("fails", "失败"),
    "at_once": ("paid out at once", "立即到账"),
    "dealing": ("stays under way until told", "停留处理中"),
    "plate_paused": ("the plate is paused", "车牌已暂停"),
    "busy": ("busy", "系统繁忙"),
    "refused": ("refused", "被拒绝"),
    "wrong_check_value": ("wrong check value", "校验值错误"),
}
_WHETHER: Final[Mapping[str, tuple[str, str]]] = {
    "_not_done": (", not done", "，未执行"),
    "_unpaid": (", unpaid", "，未付款"),
    "_done": (", done", "，已执行"),
    "_paid": (", paid", "，已付款"),
    "_made": (", made but unpaid", "，已下单未付款"),
}


def say(language: Language, key: str, **facts: object) -> str:
    """Return a text; a state or word nobody translated stays as it is."""
    both = _WORDS.get(key)
    if both is None:
        return key.partition(".")[2] or key
    return both[language == "zh"].format(**facts)


def point(language: Language, on: str) -> str:
    """Return what a point is called at which faults happen."""
    return _POINTS[on][language == "zh"]


def fault(language: Language, name: str) -> str:
    """Return what a fault does, in few words."""
    is_zh = language == "zh"
    for ending, whether in _WHETHER.items():
        if name.endswith(ending) and name not in _HOW:
            return _HOW[name.removesuffix(ending)][is_zh] + whether[is_zh]
    return _HOW[name][is_zh]
