"""Every document that others recorded of WeChat Pay is read and written again as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tongbao.rails.channels.wechat_pay.documents import (
    agreements,
    orders,
    splits,
    transfers,
    vehicles,
)
from tongbao.rails.channels.wechat_pay.documents.parts import Document

WECHAT = Path(__file__).parents[1] / "vectors" / "wechat"

MODELS: dict[str, type[Document]] = {
    "Bill__GetBillFundflowBillResponse": orders.BillAddress,
    "Bill__GetBillSubMerchantFundflowBillResponse": orders.SubMerchantBills,
    "Bill__GetBillTradeBillResponse": orders.BillAddress,
    "Certificates__QueryCertificatesResponse": orders.CertificateList,
    "CombineTransactions__CloseCombineTransactionRequest": orders.CombinedClosing,
    "CombineTransactions__CreateCombineTransactionAppRequest": orders.CombinedRequest,
    "CombineTransactions__CreateCombineTransactionAppResponse": orders.Prepaid,
    "CombineTransactions__CreateCombineTransactionH5Request": orders.CombinedRequest,
    "CombineTransactions__CreateCombineTransactionH5Response": orders.H5Url,
    "CombineTransactions__CreateCombineTransactionJsapiRequest": orders.CombinedRequest,
    "CombineTransactions__CreateCombineTransactionJsapiResponse": orders.Prepaid,
    "CombineTransactions__CreateCombineTransactionMiniProgramRequest": orders.CombinedRequest,
    "CombineTransactions__CreateCombineTransactionMiniProgramResponse": orders.Prepaid,
    "CombineTransactions__CreateCombineTransactionNativeRequest": orders.CombinedRequest,
    "CombineTransactions__CreateCombineTransactionNativeResponse": orders.CodeUrl,
    "CombineTransactions__GetCombineTransactionByCombineOutTradeNumberResponse": orders.CombinedTransaction,
    "CombineTransactions__GetCombineTransactionByCombineTransactionIdResponse": orders.CombinedTransaction,
    "FundApp__BrandRedPacket__CreateFundAppBrandRedPacketBrandMerchantBatchRequest": transfers.RedPacketRequest,
    "FundApp__BrandRedPacket__CreateFundAppBrandRedPacketBrandMerchantBatchResponse": transfers.RedPacketBatch,
    "FundApp__BrandRedPacket__GetFundAppBrandRedPacketBrandMerchantBatchByBatchNumberResponse": transfers.RedPacketBatch,
    "FundApp__BrandRedPacket__GetFundAppBrandRedPacketBrandMerchantBatchByOutBatchNumberResponse": transfers.RedPacketBatch,
    "FundApp__BrandRedPacket__GetFundAppBrandRedPacketBrandMerchantBatchDetailByDetailNumberResponse": transfers.RedPacketDetail,
    "FundApp__BrandRedPacket__GetFundAppBrandRedPacketBrandMerchantBatchDetailByOutDetailNumberResponse": transfers.RedPacketDetail,
    "FundApp__MerchantTransfer__Elecsign__CreateFundAppMerchantTransferElecsignByOutBillNumberRequest": transfers.Receipt,
    "FundApp__MerchantTransfer__Elecsign__CreateFundAppMerchantTransferElecsignByOutBillNumberResponse": transfers.Receipt,
    "FundApp__MerchantTransfer__Elecsign__CreateFundAppMerchantTransferElecsignByTransferBillNumberRequest": transfers.Receipt,
    "FundApp__MerchantTransfer__Elecsign__CreateFundAppMerchantTransferElecsignByTransferBillNumberResponse": transfers.Receipt,
    "FundApp__MerchantTransfer__Elecsign__GetFundAppMerchantTransferElecsignByOutBillNumberResponse": transfers.Receipt,
    "FundApp__MerchantTransfer__Elecsign__GetFundAppMerchantTransferElecsignByTransferBillNumberResponse": transfers.Receipt,
    "FundApp__MerchantTransfer__TransferBills__CancelFundAppMerchantTransferBillResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferBillPreTransferWithAuthorizationRequest": transfers.TransferRequest,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferBillPreTransferWithAuthorizationResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferBillRequest": transfers.TransferRequest,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferBillResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferBillTransferRequest": transfers.TransferRequest,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferBillTransferResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferUserConfirmAuthorizationRequest": transfers.Authorisation,
    "FundApp__MerchantTransfer__TransferBills__CreateFundAppMerchantTransferUserConfirmAuthorizationResponse": transfers.Authorisation,
    "FundApp__MerchantTransfer__TransferBills__GetFundAppMerchantTransferBillByOutBillNumberResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferBills__GetFundAppMerchantTransferBillByTransferBillNumberResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferBills__GetFundAppMerchantTransferUserConfirmAuthorizationByOutAuthorizationNumberResponse": transfers.Authorisation,
    "FundApp__MerchantTransfer__TransferToQQWalletBills__CancelFundAppMerchantTransferToQQWalletBillResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferToQQWalletBills__CreateFundAppMerchantTransferToQQWalletBillRequest": transfers.TransferRequest,
    "FundApp__MerchantTransfer__TransferToQQWalletBills__CreateFundAppMerchantTransferToQQWalletBillResponse": transfers.TransferBill,
    "FundApp__MerchantTransfer__TransferToQQWalletBills__GetFundAppMerchantTransferToQQWalletBillByOutBillNumberResponse": transfers.TransferBill,
    "PAPay__CreatePAPayContractNotificationRequest": agreements.DeductNotice,
    "PAPay__InsurancePayPolicyPeriods__CreatePAPayInsurancePayPolicyPeriodScheduleRequest": agreements.ScheduleRequest,
    "PAPay__InsurancePayPolicyPeriods__CreatePAPayInsurancePayPolicyPeriodScheduleResponse": agreements.Schedule,
    "PAPay__InsurancePayPolicyPeriods__GetPAPayInsurancePayPolicyPeriodByPolicyPeriodIdResponse": agreements.Schedule,
    "PAPay__InsurancePayTransactions__ApplyPAPayInsurancePayTransactionRequest": agreements.DeductRequest,
    "PAPay__InsurancePayTransactions__ApplyPAPayInsurancePayTransactionResponse": agreements.Deducted,
    "PAPay__InsuranceSignContracts__GetPAPayInsuranceSignContractByOutContractCodeResponse": agreements.Contract,
    "PAPay__InsuranceSignContracts__QueryPAPayInsuranceSignPolicyPeriodsResponse": agreements.PolicyPeriods,
    "PAPay__InsuranceSignContracts__RenewPAPayInsuranceSignContractRequest": agreements.RenewRequest,
    "PAPay__InsuranceSignContracts__TerminatePAPayInsuranceSignContractRequest": agreements.TerminateRequest,
    "PAPay__InsuranceSignContracts__TerminatePAPayInsuranceSignContractResponse": agreements.Contract,
    "PAPay__InsuranceSign__PresignPAPayInsuranceSignContractEntrustH5Request": agreements.SignRequest,
    "PAPay__InsuranceSign__PresignPAPayInsuranceSignContractEntrustH5Response": agreements.SignOffer,
    "PAPay__InsuranceSign__PresignPAPayInsuranceSignContractEntrustJsapiRequest": agreements.SignRequest,
    "PAPay__InsuranceSign__PresignPAPayInsuranceSignContractEntrustJsapiResponse": agreements.SignOffer,
    "PAPay__InsuranceSign__PresignPAPayInsuranceSignContractEntrustMiniProgramRequest": agreements.SignRequest,
    "PAPay__InsuranceSign__PresignPAPayInsuranceSignContractEntrustMiniProgramResponse": agreements.SignOffer,
    "PAPay__PaySchedules__CreatePAPayPaySchedulesContractScheduleRequest": agreements.ScheduleRequest,
    "PAPay__PaySchedules__CreatePAPayPaySchedulesContractScheduleResponse": agreements.Schedule,
    "PAPay__PaySchedules__GetPAPayPaySchedulesContractByContractIdResponse": agreements.Schedule,
    "PAPay__PayTransactions__ApplyPAPayPayTransactionHarmonyRequest": agreements.DeductRequest,
    "PAPay__PayTransactions__ApplyPAPayPayTransactionHarmonyResponse": agreements.Deducted,
    "PAPay__PayTransactions__ApplyPAPayPayTransactionRequest": agreements.DeductRequest,
    "PAPay__PayTransactions__ApplyPAPayPayTransactionResponse": agreements.Deducted,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustAppRequest": agreements.SignRequest,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustAppResponse": agreements.SignOffer,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustH5Request": agreements.SignRequest,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustH5Response": agreements.SignOffer,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustJsapiRequest": agreements.SignRequest,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustJsapiResponse": agreements.SignOffer,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustMiniProgramRequest": agreements.SignRequest,
    "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrustMiniProgramResponse": agreements.SignOffer,
    "PAPay__SignContracts__GetPAPaySignContractByOutContractCodeResponse": agreements.Contract,
    "PAPay__SignContracts__TerminatePAPaySignContractRequest": agreements.TerminateRequest,
    "PAPay__SignContracts__TerminatePAPaySignContractResponse": agreements.Contract,
    "PayTransactions__ClosePayTransactionRequest": orders.Closing,
    "PayTransactions__CreatePayTransactionAppRequest": orders.OrderRequest,
    "PayTransactions__CreatePayTransactionAppResponse": orders.Prepaid,
    "PayTransactions__CreatePayTransactionCodePayRequest": orders.OrderRequest,
    "PayTransactions__CreatePayTransactionCodePayResponse": orders.Transaction,
    "PayTransactions__CreatePayTransactionH5Request": orders.OrderRequest,
    "PayTransactions__CreatePayTransactionH5Response": orders.H5Url,
    "PayTransactions__CreatePayTransactionJsapiRequest": orders.OrderRequest,
    "PayTransactions__CreatePayTransactionJsapiResponse": orders.Prepaid,
    "PayTransactions__CreatePayTransactionNativeRequest": orders.OrderRequest,
    "PayTransactions__CreatePayTransactionNativeResponse": orders.CodeUrl,
    "PayTransactions__Exposure__CreatePayTransactionExposureRequest": orders.ExposureRequest,
    "PayTransactions__Exposure__CreatePayTransactionExposureResponse": orders.Exposure,
    "PayTransactions__GetPayTransactionByIdResponse": orders.Transaction,
    "PayTransactions__GetPayTransactionByOutTradeNumberResponse": orders.Transaction,
    "PayTransactions__ReversePayTransactionRequest": orders.Reversing,
    "PayTransactions__ReversePayTransactionResponse": orders.Reversed,
    "ProfitSharing__Amounts__GetProfitSharingTransactionAmountsResponse": splits.Unsplit,
    "ProfitSharing__Bills__GetProfitSharingBillResponse": orders.BillAddress,
    "ProfitSharing__CreateProfitSharingOrderRequest": splits.SplitRequest,
    "ProfitSharing__CreateProfitSharingOrderResponse": splits.Split,
    "ProfitSharing__CreateProfitSharingReturnOrderRequest": splits.ReturnRequest,
    "ProfitSharing__CreateProfitSharingReturnOrderResponse": splits.SplitReturned,
    "ProfitSharing__GetProfitSharingOrderByOutOrderNumberResponse": splits.Split,
    "ProfitSharing__GetProfitSharingReturnOrderByOutOrderNumberResponse": splits.SplitReturned,
    "ProfitSharing__MerchantConfigs__GetProfitSharingMerchantConfigsResponse": splits.SplitLimit,
    "ProfitSharing__Receivers__AddProfitSharingReceiverRequest": splits.SplitReceiver,
    "ProfitSharing__Receivers__AddProfitSharingReceiverResponse": splits.SplitReceiver,
    "ProfitSharing__Receivers__DeleteProfitSharingReceiverRequest": splits.SplitReceiver,
    "ProfitSharing__Receivers__DeleteProfitSharingReceiverResponse": splits.SplitReceiver,
    "ProfitSharing__SetProfitSharingOrderUnfrozenRequest": splits.UnfreezeRequest,
    "ProfitSharing__SetProfitSharingOrderUnfrozenResponse": splits.Split,
    "Refund__CreateRefundDomesticAbnormalRefundApplyRequest": orders.AbnormalRefundRequest,
    "Refund__CreateRefundDomesticAbnormalRefundApplyResponse": orders.Refund,
    "Refund__CreateRefundDomesticRefundRequest": orders.RefundRequest,
    "Refund__CreateRefundDomesticRefundResponse": orders.Refund,
    "Refund__GetRefundDomesticRefundByOutRefundNumberResponse": orders.Refund,
    "Transfer__Batches__CreateTransferBatchRequest": transfers.BatchRequest,
    "Transfer__Batches__CreateTransferBatchResponse": transfers.Batch,
    "Transfer__Batches__GetTransferBatchByBatchIdResponse": transfers.BatchFound,
    "Transfer__Batches__GetTransferBatchByOutBatchNumberResponse": transfers.BatchFound,
    "Transfer__Batches__GetTransferBatchDetailByDetailIdResponse": transfers.BatchDetail,
    "Transfer__Batches__GetTransferBatchDetailByOutDetailNumberResponse": transfers.BatchDetail,
    "Transfer__BillReceipt__CreateTransferBillReceiptRequest": transfers.Receipt,
    "Transfer__BillReceipt__CreateTransferBillReceiptResponse": transfers.Receipt,
    "Transfer__BillReceipt__GetTransferBillReceiptByOutBatchNumberResponse": transfers.Receipt,
    "Transfer__DetailReceipt__CreateTransferDetailElectronicReceiptRequest": transfers.Receipt,
    "Transfer__DetailReceipt__CreateTransferDetailElectronicReceiptResponse": transfers.Receipt,
    "Transfer__DetailReceipt__GetTransferDetailElectronicReceiptByOutDetailNumberResponse": transfers.Receipt,
    "Vehicle__ETC__CreateVehicleETCTransactionHighwayRequest": vehicles.HighwayRequest,
    "Vehicle__ETC__CreateVehicleETCTransactionHighwayResponse": vehicles.VehicleTransaction,
    "Vehicle__ETC__GetVehicleETCContractByContractIdResponse": vehicles.EtcContract,
    "Vehicle__ETC__GetVehicleETCContractByOpenIdResponse": vehicles.EtcContract,
    "Vehicle__ETC__GetVehicleETCTransactionByOutTradeNumberResponse": vehicles.VehicleTransaction,
    "Vehicle__ETC__GetVehicleETCTransactionByTransactionIdResponse": vehicles.VehicleTransaction,
    "Vehicle__ETC__PreopenVehicleETCRequest": vehicles.EtcOpening,
    "Vehicle__ETC__PreopenVehicleETCResponse": vehicles.EtcOpened,
    "Vehicle__Parking__CreateVehicleParkingRequest": vehicles.Parking,
    "Vehicle__Parking__CreateVehicleParkingResponse": vehicles.Parking,
    "Vehicle__Parking__GetVehicleParkingServiceResponse": vehicles.ParkingPlate,
    "Vehicle__Transactions__CreateVehicleTransactionParkingRequest": vehicles.ParkingRequest,
    "Vehicle__Transactions__CreateVehicleTransactionParkingResponse": vehicles.VehicleTransaction,
    "Vehicle__Transactions__GetVehicleTransactionByOutTradeNumberResponse": vehicles.VehicleTransaction,
}
EVENTS: dict[str, type[Document]] = {
    "CombineTransactions__CombineTransactionResource": orders.CombinedTransaction,
    "MerchantTransfer__MerchantTransferAuthorizationConfirmedResource": transfers.Authorisation,
    "MerchantTransfer__MerchantTransferBatchClosedResource": transfers.Batch,
    "MerchantTransfer__MerchantTransferBatchFinishedResource": transfers.Batch,
    "MerchantTransfer__MerchantTransferBillFinishedResource": transfers.TransferBill,
    "MerchantTransfer__MerchantTransferQQWalletBillFinishedResource": transfers.TransferBill,
    "PAPay__PAPayEntrustResource": agreements.Contract,
    "PAPay__PAPayInsuranceEntrustResource": agreements.Contract,
    "ProfitSharing__ProfitSharingResource": splits.SplitNews,
    "Refund__RefundResource": orders.Refund,
    "Transactions__TransactionResource": orders.Transaction,
    "Vehicle__VehicleETCTransactionResource": vehicles.EtcContract,
    "Vehicle__VehicleEntranceStateChangeResource": vehicles.Parking,
    "Vehicle__VehicleTransactionResource": vehicles.VehicleTransaction,
    "Violation__ViolationResource": vehicles.Violation,
}


def sample(folder: str, name: str) -> Any:
    return json.loads((WECHAT / folder / f"{name}.json").read_text("utf-8-sig"))


def shown_twice(document: type[Document], text: Any) -> Any:
    """The text after it was read into our Struct and written again."""
    return json.loads(msgspec.json.encode(msgspec.convert(text, document)))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_round_trips(name: str) -> None:
    assert shown_twice(MODELS[name], sample("models", name)) == sample("models", name)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_round_trips(name: str) -> None:
    assert shown_twice(EVENTS[name], sample("events", name)) == sample("events", name)


@pytest.mark.parametrize(("folder", "known"), [("models", MODELS), ("events", EVENTS)])
def test_every_sample_has_its_struct(folder: str, known: dict[str, type[Document]]) -> None:
    assert {path.stem for path in (WECHAT / folder).glob("*.json")} == set(known)


def test_the_samples_are_all_there() -> None:
    assert (len(MODELS), len(EVENTS)) == (143, 15)


@pytest.mark.parametrize("name", {**MODELS, **EVENTS})
def test_a_field_we_do_not_know_does_not_hinder_reading(name: str) -> None:
    document = {**MODELS, **EVENTS}[name]
    text = sample("models" if name in MODELS else "events", name)
    assert shown_twice(document, {**text, "a_field_of_tomorrow": [{}]}) == text
