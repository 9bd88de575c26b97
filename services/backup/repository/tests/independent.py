"""Reads a Loam repository of format version 1 in a folder, and prints its contents as JSON.

Written from the pages of the crate (`src/format`, `src/keys`, `src/chunker`, `src/store/names.rs`) and from nothing
else, so that it shows whether they are enough to get everything back without our code. It trusts nothing: signatures,
seals, lengths and the id of every blob are checked, and where disks are cut on the grid, that each cut is where it
should be. The index is not read: packs say themselves what they hold.

    independent.py FOLDER --passphrase-file FILE | --key-file FILE | --identity-file FILE
"""

import argparse
import hashlib
import itertools
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import msgpack
import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CIPHERS = [AESGCM, ChaCha20Poly1305]
CIPHER_NAMES = ["aes-256-gcm", "chacha20-poly1305"]
KINDS = ["chunk", "leaf", "page", "disk", "stream"]
PACK_FOLDERS = ["data", "meta"]
BLOB_BYTES_MAX = 4 << 20
LEAVES_PER_PAGE = 1024
GRID = 4096


class Damaged(Exception):
    """The repository is damaged."""


def check(holds, what):
    if not holds:
        raise Damaged(what)


class Cursor:
    """Takes fields off the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        check(self.at + count <= len(self.data), "it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count):
        return int.from_bytes(self.bytes(count), "little")

    def more(self):
        return self.at < len(self.data)

    def rest(self):
        return self.bytes(len(self.data) - self.at)


# src/keys


def derive(purpose, *parts):
    return blake3(b"".join(parts), derive_key_context=purpose).digest()


def nonce(number):
    return bytes(8) + struct.pack(">I", number)


def unseal(cipher, key, number, bound, sealed):
    return CIPHERS[cipher](key).decrypt(nonce(number), sealed, bound)


def public_of(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(purpose, private, envelope, *bound):
    secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(envelope))
    return derive(purpose, secret, envelope, public_of(private), *bound)


def verify(authority, purpose, signature, text):
    Ed25519PublicKey.from_public_bytes(authority).verify(signature, purpose.encode() + b"\0" + text)


def ulid_bytes(word):
    number = 0
    for letter in word.upper():
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(letter)
    return number.to_bytes(16, "big")


def read_identity(text):
    (word,) = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    prefix = "loam-identity-"
    check(word.startswith(prefix), "it is no identity")
    digits = bytes.fromhex(word[len(prefix) :])
    check(len(digits) == 36 and blake3(prefix.encode() + digits[:32]).digest()[:4] == digits[32:], "it is mistyped")
    return digits[:32]


@dataclass
class Secret:
    kind: str
    content: bytes

    def open_slot(self, repository, slot):
        """The private key of a slot and the authority in its lock, or None when it is for another secret."""
        lock = slot["lock"]
        if lock == "elsewhere":
            ours = self.kind == "identity" and public_of(self.content) == slot["recipient"]
            return (self.content, None) if ours else None
        wrapped = lock["wrapped"]
        if wrapped["kind"] != self.kind:
            return None
        cost = wrapped["cost"]
        key = hash_secret_raw(
            secret=self.content,
            salt=wrapped["salt"],
            time_cost=cost["passes"],
            memory_cost=cost["memory_kib"],
            parallelism=cost["lanes"],
            hash_len=32,
            type=Type.ID,
            version=0x13,
        )
        try:
            text = unseal(0, key, 0, repository + ulid_bytes(slot["id"]), wrapped["text"])
        except Exception:  # noqa: BLE001  the library has one kind of error: another secret
            return None
        check(len(text) == 64, "a lock is malformed")
        return text[:32], text[32:]


class Keys:
    """The key bundle that a slot is granted."""

    def __init__(self, bundle):
        cursor = Cursor(bundle)
        role = cursor.number(1)
        check(role in (0, 1), "the role is unknown")
        self.can_read = role == 0
        ids = cursor.bytes(32)
        self.authority = cursor.bytes(32)
        if self.can_read:
            cursor.bytes(32)
        self.epochs = {}
        for _ in range(cursor.number(4)):
            number, meta, reader_public = cursor.number(4), cursor.bytes(32), cursor.bytes(32)
            reader = cursor.bytes(32) if self.can_read else None
            check(reader is None or public_of(reader) == reader_public, "a reader's key has another public half")
            self.epochs[number] = (meta, reader)
        check(not cursor.more() and self.epochs, "the bundle is malformed")
        self.ids = [derive(f"loam repository v1 id of {kind}", ids) for kind in KINDS]

        aligned = derive("loam repository v1 aligned chunker", ids)
        self.universal, self.cipher = AESGCM(aligned[:16]), algorithms.AES(aligned[16:])

    def choice(self, block):
        """What decides whether a chunk ends after a block of the grid."""
        tag = self.universal.encrypt(bytes(12), b"", block)
        return int.from_bytes(Cipher(self.cipher, modes.ECB()).encryptor().update(tag)[:4], "little")

    def id(self, kind, content):
        return blake3(content, key=self.ids[kind]).digest()


# src/format


def header(magic, data):
    cursor = Cursor(data)
    check(cursor.bytes(8) == magic, f"it does not begin with {magic}")
    check(cursor.number(2) == 1, "it is of another version")
    return cursor


class Repository:
    def __init__(self, folder, secret):
        self.folder = Path(folder)
        cursor = header(b"LOAMREPO", self.read("config"))
        signature, body = cursor.bytes(64), cursor.rest()
        self.config = msgpack.unpackb(body)
        self.id = self.config["repository"]
        self.keys, self.slots = self.open_roster(secret)
        verify(self.keys.authority, "loam repository v1 config", signature, body)
        self.packs = []
        self.blobs, self.copies, self.needed = {}, 0, set()
        for kind, name in enumerate(PACK_FOLDERS):
            for path in sorted((self.folder / name).glob("??/*")):
                if "#" not in path.name:
                    check(path.parent.name == path.name[:2], "a pack is in the wrong folder")
                    self.read_pack(kind, bytes.fromhex(path.name), path.read_bytes())

    def read(self, name):
        return (self.folder / name).read_bytes()

    def open_roster(self, secret):
        names = (path.name for path in (self.folder / "keys" / self.id.hex()).iterdir())
        newest = max((name for name in names if name.isdigit()), key=int)
        cursor = header(b"LOAMKEYS", self.read(f"keys/{self.id.hex()}/{newest}"))
        signature, body = cursor.bytes(64), cursor.rest()
        roster = msgpack.unpackb(body)
        check(roster["number"] == int(newest), "a roster is under the name of another")
        check(roster["repository"] == self.id, "the roster is another repository's")
        for slot in roster["slots"]:
            opened = secret.open_slot(self.id, slot)
            if opened is None:
                continue
            private, trusted = opened
            role = ["full", "write-only"].index(slot["role"])
            bound = self.id + ulid_bytes(slot["id"]) + bytes([role]) + slot["recipient"]
            key = agreed("loam repository v1 grant", private, slot["envelope"], self.id)
            keys = Keys(unseal(0, key, 0, bound, slot["grant"]))
            check(trusted in (None, keys.authority) and roster["authority"] == keys.authority, "another authority")
            verify(keys.authority, "loam repository v1 key roster", signature, body)
            return keys, roster["slots"]
        raise Damaged("no slot opens with this secret")

    def read_pack(self, kind, pack, data):
        check(len(data) >= 96, "a pack is shorter than its footer")
        footer = data[-96:]
        check(blake3(footer[:80]).digest()[:16] == footer[80:], "a footer does not match its checksum")
        cursor = header(b"LOAMPACK", footer)
        found_kind, cipher, epoch = cursor.number(1), cursor.number(1), cursor.number(4)
        directory_bytes, _, offset = cursor.number(4), cursor.number(4), cursor.number(8)
        found_pack, envelope = cursor.bytes(16), cursor.bytes(32)
        check((found_kind, found_pack) == (kind, pack), "a pack is under the name of another")
        check(offset + directory_bytes + 96 == len(data), "a pack has another length than its footer says")
        meta, reader = self.keys.epochs[epoch]
        directory_key = derive("loam repository v1 directory", meta, pack)
        directory = unseal(cipher, directory_key, 0, footer[:80], data[offset:-96])
        if kind == 1:
            check(envelope == bytes(32), "a pack of recipes has an envelope")
            key = derive("loam repository v1 meta pack", meta, pack)
        else:
            key = reader and agreed("loam repository v1 data pack", reader, envelope, meta, pack)
        entries, at = Cursor(directory), 0
        for slot in range(entries.number(4)):
            blob, blob_kind = entries.bytes(32), entries.number(1)
            sealed_bytes, raw_bytes = entries.number(4), entries.number(4)
            check((blob_kind == 0) == (kind == 0) and raw_bytes <= BLOB_BYTES_MAX, "an entry makes no sense")
            if key is not None:
                bound = blob + bytes([blob_kind]) + pack + struct.pack("<I", slot)
                text = unseal(cipher, key, slot, bound, data[at : at + sealed_bytes])
                content = self.decode(blob_kind, text, raw_bytes)
                check(self.keys.id(blob_kind, content) == blob, "a blob is not what its id says")
                self.blobs[blob_kind, blob] = content
                self.copies += 1
            at += sealed_bytes
        check(at == offset and not entries.more(), "the blobs do not fill their pack")
        self.packs.append({"kind": PACK_FOLDERS[kind], "cipher": CIPHER_NAMES[cipher], "epoch": epoch})

    @staticmethod
    def decode(kind, text, raw_bytes):
        check(text[:1] in (b"\0", b"\1"), "the encoding is unknown")
        content = text[1:]
        if text[0] == 1:
            content = zstandard.ZstdDecompressor().decompress(content, max_output_size=max(raw_bytes, 1))
        check(len(content) == raw_bytes, "a blob has another length than its pack says")
        return content

    def unseal_object(self, name):
        data = self.read(name)
        cursor = header(b"LOAMSEAL", data)
        cipher, _, epoch, salt = cursor.number(1), cursor.number(1), cursor.number(4), cursor.bytes(32)
        key = derive("loam repository v1 object", self.keys.epochs[epoch][0], salt)
        return unseal(cipher, key, 0, data[:48] + name.encode(), cursor.rest()), cipher

    def for_readers(self, data):
        cursor = Cursor(data)
        cipher, epoch, envelope = cursor.number(1), cursor.number(4), cursor.bytes(32)
        meta, reader = self.keys.epochs[epoch]
        key = agreed("loam repository v1 for readers", reader, envelope, meta)
        return unseal(cipher, key, 0, data[:37], cursor.rest())

    # A disk or stream, piece by piece.

    def blob(self, kind, blob):
        self.needed.add((kind, blob))
        return self.blobs[kind, blob]

    def leaf(self, blob, covers):
        """The parts of a leaf: bytes of zeros as a number, or content."""
        cursor, covered = Cursor(self.blob(1, blob)), 0
        while cursor.more():
            tag, length = cursor.number(1), cursor.number(4)
            covered += length
            check(tag in (0, 1) and length > 0, "a piece makes no sense")
            if tag == 0:
                yield length
            else:
                content = self.blob(0, cursor.bytes(32))
                check(len(content) == length, "a chunk has another length than its leaf says")
                yield content
        check(covered == covers, "a leaf does not cover its segment")

    def aligned_ends(self, data, behind_a_line):
        """The ends of the chunks of a range of data."""
        shortest, average, longest = (self.config["chunking"][f"chunk_bytes_{size}"] for size in ("min", "avg", "max"))
        bits = (average // GRID).bit_length() - 1
        start = at = 0
        while at < len(data):
            block = data[at : at + GRID - behind_a_line]
            at, behind_a_line = at + len(block), 0
            length = at - start
            zeros = bits + 1 if length < average else bits - 1
            is_chosen = length >= shortest and self.keys.choice(block) >> (32 - zeros) == 0
            if is_chosen or length > longest - GRID or at == len(data):
                yield at
                start = at

    def check_cuts(self, pieces, phase):
        at = 0
        for is_data, stretch in itertools.groupby(pieces, lambda piece: isinstance(piece, bytes)):
            stretch = list(stretch)
            lengths = [len(piece) for piece in stretch] if is_data else stretch
            if is_data:
                ends = list(self.aligned_ends(b"".join(stretch), (at - phase) % GRID))
                check(list(itertools.accumulate(lengths)) == ends, "a disk is cut at other places than it should be")
            at += sum(lengths)

    @staticmethod
    def ids(cursor, count):
        for _ in range(count):
            tag = cursor.number(1)
            check(tag in (0, 1), "an entry makes no sense")
            yield cursor.bytes(32) if tag == 1 else None
        check(not cursor.more(), "a recipe has too many entries")

    def disk(self, record):
        cursor = Cursor(self.blob(3, record["root"]))
        check(cursor.bytes(4) == b"disk", "a disk's recipe does not begin like one")
        size, segment_bytes = cursor.number(8), cursor.number(4)
        check(size == record["size_bytes"] and segment_bytes > 0, "a disk's recipe has another size")
        segments = -(-size // segment_bytes)
        for number, page in enumerate(list(self.ids(cursor, -(-segments // LEAVES_PER_PAGE)))):
            first = number * LEAVES_PER_PAGE
            count = min(LEAVES_PER_PAGE, segments - first)
            leaves = [None] * count if page is None else list(self.ids(Cursor(self.blob(2, page)), count))
            for index, leaf in enumerate(leaves, first):
                covers = min(segment_bytes, size - index * segment_bytes)
                if leaf is None:
                    yield covers
                else:
                    pieces = list(self.leaf(leaf, covers))
                    if self.config["chunking"]["algorithm"] == "aligned_ghash_aes":
                        self.check_cuts(pieces, record.get("phase_bytes", 0))
                    yield from pieces

    def stream(self, record):
        cursor = Cursor(self.blob(4, record["root"]))
        check(cursor.bytes(4) == b"strm", "a stream's recipe does not begin like one")
        left = cursor.number(8)
        check(left == record["size_bytes"], "a stream's recipe has another size")
        while cursor.more():
            covers, leaf = cursor.number(8), cursor.bytes(32)
            left -= covers
            for piece in self.leaf(leaf, covers):
                check(isinstance(piece, bytes), "a stream has a hole")
                yield piece
        check(left == 0, "a stream's leaves do not fill it")

    def sha256(self, record):
        digest, zeros = hashlib.sha256(), bytes(1 << 20)
        for piece in {"disk": self.disk, "stream": self.stream}[record["shape"]](record):
            if isinstance(piece, bytes):
                digest.update(piece)
            else:
                while piece > 0:
                    digest.update(zeros[:piece])
                    piece -= min(piece, len(zeros))
        return digest.hexdigest()

    def snapshot(self, name):
        text, cipher = self.unseal_object(f"snapshots/{name}")
        said = msgpack.unpackb(text)
        plain = {key: said[key] for key in ("machine", "taken_at_unix_ms", "tags", "parent", "consistency", "stats")}
        disks = [
            {
                "name": record["name"],
                "shape": record["shape"],
                "size_bytes": record["size_bytes"],
                "sha256": self.sha256(record) if self.keys.can_read else None,
            }
            for record in said["disks"]
        ]
        definition = self.for_readers(said["definition"]).decode() if self.keys.can_read else None
        return plain | {"id": name, "cipher": CIPHER_NAMES[cipher], "disks": disks, "definition": definition}

    def described(self):
        names = sorted(path.name for path in (self.folder / "snapshots").iterdir() if "#" not in path.name)
        snapshots = [self.snapshot(name) for name in names]
        return {
            "repository": self.id.hex(),
            "can_read": self.keys.can_read,
            "epochs": sorted(self.keys.epochs),
            "slots": [{"label": slot["label"], "role": slot["role"]} for slot in self.slots],
            "packs": self.packs,
            "snapshots": snapshots,
            "blobs": self.copies,
            "blobs_needed": len(self.needed),
        }


def secret_from(arguments):
    if arguments.passphrase_file:
        words = Path(arguments.passphrase_file).read_bytes()
        return Secret("passphrase", words.removesuffix(b"\n").removesuffix(b"\r"))
    if arguments.key_file:
        return Secret("key_file", Path(arguments.key_file).read_bytes())
    return Secret("identity", read_identity(Path(arguments.identity_file).read_text()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    kind = parser.add_mutually_exclusive_group(required=True)
    for name in ("--passphrase-file", "--key-file", "--identity-file"):
        kind.add_argument(name)
    arguments = parser.parse_args()
    print(json.dumps(Repository(arguments.folder, secret_from(arguments)).described(), indent=2))


if __name__ == "__main__":
    main()
