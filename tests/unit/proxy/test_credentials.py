import pytest

from keys.client_keys import new_client_key, prefix_of
from keys.held_vault import HeldVault
from keys.keyring import create_keyring, read_keyring
from keys.sealing import Vault
from proxy.credentials import Credential, MalformedCredential, read_client_key, read_credential

ALICE = new_client_key()
BOB = new_client_key()
WRONG_CHECKSUM = ALICE[:-1] + ("a" if ALICE[-1] != "a" else "b")
FOREIGN = b"sk-or-v1-test-0123456789"


def x_api_key(value):
    return (b"x-api-key", value if isinstance(value, bytes) else value.encode())


def bearer(value, scheme=b"Bearer "):
    return (b"authorization", scheme + (value if isinstance(value, bytes) else value.encode()))


@pytest.mark.parametrize(
    "headers",
    [
        [x_api_key(ALICE)],
        [bearer(ALICE)],
        [bearer(ALICE, b"bearer ")],
        [bearer(ALICE, b"BEARER   ")],
        [x_api_key(f" {ALICE}\t")],
        [x_api_key(ALICE), bearer(ALICE)],
        [x_api_key(ALICE), x_api_key(ALICE)],
        [x_api_key(ALICE), bearer(WRONG_CHECKSUM)],
        [x_api_key(WRONG_CHECKSUM), bearer(ALICE)],
        [x_api_key(b""), bearer(ALICE)],
        [x_api_key(ALICE), bearer(b"")],
        [x_api_key(FOREIGN), bearer(ALICE)],
        [x_api_key(ALICE), bearer(b"dXNlcjpwYXNz", b"Basic ")],
        [bearer(BOB), x_api_key(ALICE)],
        [x_api_key(ALICE), x_api_key(BOB)],
    ],
    ids=[
        "x-api-key",
        "bearer",
        "scheme in lower case",
        "scheme in upper case and spaces",
        "white space around",
        "both, equal",
        "twice, equal",
        "bearer malformed",
        "x-api-key malformed",
        "x-api-key empty",
        "bearer empty",
        "x-api-key of another service",
        "basic beside it",
        "both well-formed and different: x-api-key",
        "twice, well-formed and different: the first",
    ],
)
def test_the_client_key_is_read(headers):
    assert read_client_key([(b"host", b"x"), *headers, (b"accept", b"*/*")]) == ALICE


@pytest.mark.parametrize(
    ("headers", "reason", "prefix"),
    [
        ([], "missing", ""),
        ([x_api_key(b""), bearer(b"")], "missing", ""),
        ([(b"x_api_key", ALICE.encode())], "missing", ""),
        ([x_api_key(WRONG_CHECKSUM)], "malformed", prefix_of(ALICE)),
        ([bearer(ALICE + "x")], "malformed", prefix_of(ALICE)),
        ([bearer(FOREIGN)], "malformed", "sk-or-"),
        ([x_api_key(b"hunter2-is-my-password")], "malformed", ""),
        ([bearer(b"dXNlcjpwYXNz", b"Basic ")], "malformed", ""),
        ([x_api_key(ALICE.encode() + b"\n")], "malformed", prefix_of(ALICE)),
        ([x_api_key(b"sk-ant-api03-\x00\x1b[3\xff")], "malformed", ""),
        ([x_api_key(bytes(range(128, 256)))], "malformed", ""),
        ([x_api_key(b"x" * 60_000)], "malformed", ""),
    ],
    ids=[
        "none",
        "both empty",
        "underscored name",
        "wrong checksum",
        "one character too many",
        "an upstream key",
        "a password",
        "basic",
        "line feed at the end",
        "control characters",
        "not ASCII",
        "60 kB",
    ],
)
def test_what_is_no_client_key_is_refused_with_a_reason_for_the_log(headers, reason, prefix):
    with pytest.raises(MalformedCredential) as caught:
        read_client_key(headers)

    assert (caught.value.reason, caught.value.prefix) == (reason, prefix)


@pytest.fixture
def vault(tmp_path):
    create_keyring(tmp_path / "keyring.json")
    keyring = Vault(read_keyring(tmp_path / "keyring.json"))
    return HeldVault(lambda: keyring, lambda: 0.0)


def test_a_credential_is_the_digest_and_the_prefix_of_the_client_key(vault):
    assert read_credential([x_api_key(ALICE)], vault) == Credential(vault.client_digest(ALICE), prefix_of(ALICE))


def test_a_credential_that_is_known_is_that_of_the_very_same_headers(vault):
    sent = [[x_api_key(key)] for key in (ALICE, BOB)] + [[x_api_key(f"x {ALICE}"), bearer(BOB)], [bearer(BOB)]]

    first = [read_credential(headers, vault) for headers in sent]

    assert [read_credential(headers, vault) for headers in sent] == first
    assert [known.prefix for known in first] == [prefix_of(key) for key in (ALICE, BOB, BOB, BOB)]
    with pytest.raises(MalformedCredential):  # it was let pass beside a good one
        read_credential(sent[2][:1], vault)


def test_the_key_shows_in_no_repr_and_no_exception(vault):
    shown = repr(read_credential([x_api_key(ALICE)], vault))
    with pytest.raises(MalformedCredential) as caught:
        read_client_key([x_api_key(WRONG_CHECKSUM)])

    assert ALICE not in shown
    assert WRONG_CHECKSUM not in f"{caught.value!r} {caught.value} {caught.value.args}"
