"""A terminal that reads and writes with pyiso8583, a codec written by others.

Reads ``{"host", "credentials", "ours", "notes"}`` from standard input: the simulated card host,
its customer's keys, messages in hexadecimal that the platform wrote, and documents to write.
Prints what the codec made of each and of the host's answers, as one JSON object. The codec's own
table for ISO 8583:1987 is used as it is; only three free texts hold bytes that are not ASCII.
"""

import copy
import json
import socket
import sys

import iso8583
import iso8583.specs
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

TABLE = copy.deepcopy(iso8583.specs.default)
for free_text in ("43", "62", "63"):
    TABLE[free_text]["data_enc"] = "latin-1"
HEADER = 46


def main():
    given = json.load(sys.stdin)
    heard = {
        "ours": {name: round_trip(text) for name, text in given["ours"].items()},
        "written": {name: written(note) for name, note in given["notes"].items()},
    }
    terminal = Terminal(given["host"], given["credentials"])
    heard |= terminal.work(given["card"])
    json.dump(heard, sys.stdout)


def round_trip(text):
    """What the codec reads in a message, and whether it would have written the same bytes."""
    document, _ = iso8583.decode(bytes.fromhex(text), TABLE)
    again, _ = iso8583.encode(document, TABLE)
    return {"fields": document, "same": again.hex() == text.lower()}


def written(note):
    message, _ = iso8583.encode(note, TABLE)
    return message.hex()


def des(key):
    return Cipher(TripleDES(key + key[:8]), modes.ECB())


class Terminal:
    def __init__(self, host, keys):
        name, _, port = host.removeprefix("tcp://").partition(":")
        self.line = socket.create_connection((name, int(port)), timeout=10)
        self.keys = keys
        self.trace = 0
        self.mac_key = b""

    def work(self, card):
        heard = {"sign_in": self.sign_in()}
        paid, heard["purchase"] = self.ask("0200", self.money("000000", "00", 1999), card)
        about = {"90": original(paid)}
        _, heard["refund"] = self.ask("0220", self.money("200000", "00", 500) | about)
        _, heard["refunded_too_much"] = self.ask("0220", self.money("200000", "00", 1500) | about)
        undone, heard["second"] = self.ask("0200", self.money("000000", "00", 700), card)
        back = self.money("000000", "00", 700) | {"90": original(undone), "39": "98"}
        back |= {"37": undone["37"]}
        _, heard["reversal"] = self.ask("0400", back, plain(card))
        held, heard["authorise"] = self.ask("0100", self.money("030000", "06", 900), card)
        advice = self.money("000000", "06", 800) | {"90": original(held)}
        advice |= {"38": heard["authorise"]["38"]}
        _, heard["capture"] = self.ask("0220", advice)
        figures = "002000000002799001000000000500"  # two taken, one given back
        totals = {"48": figures + "0" * 32, "49": "156", "60": "00000001201", "63": "01 "}
        _, heard["totals"] = self.ask("0500", totals)
        return heard

    def sign_in(self):
        asked = {"60": "00000001004", "63": "01 "}
        _, answer = self.ask("0800", asked)
        block = answer["62"].encode("latin-1")
        master = des(bytes.fromhex(self.keys["master_key"])).decryptor()
        keys = [block[at : at + 20] for at in range(0, 60, 20)]
        clear = [master.update(each[:16]) for each in keys]
        zeros = [des(key).encryptor().update(bytes(8))[:4] for key in clear]
        self.mac_key = clear[1]
        return {
            "39": answer["39"],
            "checks": [z == k[16:] for z, k in zip(zeros, keys, strict=True)],
        }

    def money(self, processing, condition, amount):
        return {
            "3": processing,
            "4": f"{amount:012d}",
            "18": "5411",
            "25": condition,
            "49": "156",
        }

    def ask(self, kind, fields, card=None):
        self.trace += 1
        at = f"1231{self.trace:06d}"
        if kind not in {"0500", "0800"}:
            common = {"7": at, "12": at[4:], "13": at[:4]}
            common |= {"32": self.keys["institution"], "33": self.keys["institution"]}
        else:
            common = {}
        common |= {"11": f"{self.trace:06d}", "41": self.keys["terminal"]}
        common |= {"42": self.keys["merchant_number"]}
        if kind != "0800":
            common["37"] = f"WITNESS{self.trace:05d}"
        asked = {"t": kind, **common, **fields, **(card or {})}
        self.send(asked)
        return asked, self.receive()

    def send(self, document):
        is_long = any(name.isdigit() and int(name) > 64 for name in document)
        at = "128" if is_long else "64"
        sealed = dict(document)
        if document["t"] != "0800":
            bare, _ = iso8583.encode({**document, at: "00" * 8}, TABLE)
            sealed[at] = self.mac(bytes(bare[:-8])).hex()
        message, _ = iso8583.encode(sealed, TABLE)
        size = HEADER + len(message)
        header = b"\x2e\x02" + f"{size:04d}{self.keys['switch']:<11}".encode()
        header += f"{self.keys['institution']:<11}000".encode()
        header += b"\x00" + b"0" * 8 + b"\x00" + b"0" * 5
        self.line.sendall(size.to_bytes(2, "big") + header + message)

    def receive(self):
        size = int.from_bytes(self.exactly(2), "big")
        message = self.exactly(size)[HEADER:]
        document, _ = iso8583.decode(message, TABLE)
        at = "128" if "128" in document else "64"
        if self.mac_key and at in document:
            document["mac_fits"] = bytes.fromhex(document[at]) == self.mac(message[:-8])
        return document

    def exactly(self, count):
        read = b""
        while len(read) < count:
            more = self.line.recv(count - len(read))
            if not more:
                raise EOFError("the host hung up")
            read += more
        return read

    def mac(self, text):
        """The terminals' ECB MAC: folded, its hexadecimal halves encrypted in a chain."""
        text += bytes(-len(text) % 8)
        folded = bytes(8)
        for at in range(0, len(text), 8):
            folded = bytes(a ^ b for a, b in zip(folded, text[at : at + 8], strict=True))
        halves = folded.hex().upper().encode()
        once = des(self.mac_key).encryptor().update(halves[:8])
        mixed = bytes(a ^ b for a, b in zip(once, halves[8:], strict=True))
        return des(self.mac_key).encryptor().update(mixed).hex().upper()[:8].encode()


def original(asked):
    """Field 90: what the message is about."""
    where = asked["32"].rjust(11, "0") + asked["33"].rjust(11, "0")
    return asked["t"] + asked["11"] + asked["7"] + where


def plain(card):
    """A card for a second message: without its track."""
    return {name: value for name, value in card.items() if name != "35"}


if __name__ == "__main__":
    main()
