"""A stranger's URL leads to the public internet, or to what the operator listed, or nowhere."""

from __future__ import annotations

import ipaddress

import pytest

from runner.targets import Allowed, check, public, target_of

OPEN = Allowed("n8n:5678 hooks.test 10.1.0.0/16 [fd00::/8]:8443 127.0.0.1:*")

INSIDE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::",
    "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1",
    "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_is_called(address: str) -> None:
    """Private, loopback, link-local, multicast, translated and reserved addresses are refused."""
    target = target_of("https://hooks.example/")
    with pytest.raises(ValueError, match="not on the public internet"):
        check(target, Allowed(), [address])
    with pytest.raises(ValueError, match="not on the public internet"):
        check(target, Allowed(), ["8.8.8.8", address])  # one of several is enough


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_public_addresses_are_called(address: str) -> None:
    """The public internet is open, over https."""
    check(target_of("https://hooks.example/"), Allowed(), [address])


def test_nothing_that_python_calls_private_is_public() -> None:
    """Our rule is never weaker than the one of the standard library."""
    for number in range(0, 2**32, 2**32 // 5003):
        address = ipaddress.ip_address(number)
        assert address.is_global or not public(address)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://hooks.example/", "must start with https://"),
        ("hooks.example/", "must start with https://"),
        ("", "must start with https://"),
        ("http://hooks.example/", "must start with https://"),
        ("https://hooks.example:8443/", "port 8443 is not called"),
        ("https://hooks.example:0/", "1 to 65535"),
        ("https://hooks.example:99999/", "1 to 65535"),
        ("https://me:hush@hooks.example/", "must not hold a user"),
        ("https://hooks.example\\@127.0.0.1/", "percent-encoded"),
        ("https://hooks.example/ b", "percent-encoded"),
        ("https://hooks.example/é", "percent-encoded"),
        ("https://hooks.example/\r\nX: y", "percent-encoded"),
        ("https://hooks.example/#part", "fragment"),
        ("https:///path", "names no host"),
        ("https://%31/", "names no host"),
        ("https://127.0.0.1/", "not on the public internet"),
        ("https://[::1]/", "not on the public internet"),
        ("https://[::ffff:10.0.0.1]/", "not on the public internet"),
        ("https://hooks.example/" + "a" * 2000, "2,022 characters"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_at_once(url: str, words: str) -> None:
    """What is wrong with a URL is told before its name is looked up."""
    with pytest.raises(ValueError, match=words):
        check(target_of(url), Allowed())


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://n8n:5678/x", ["10.9.9.9"]),
        ("http://N8N.:5678/x", ["10.9.9.9"]),
        ("https://hooks.test/", ["192.168.0.1"]),
        ("http://other.test/", ["10.1.2.3"]),
        ("http://10.1.2.3/", ["10.1.2.3"]),
        ("https://[fd00::1]:8443/", ["fd00::1"]),
        ("http://127.0.0.1:5050/", ["127.0.0.1"]),
        ("http://127.0.0.1:5050/", ["::ffff:127.0.0.1"]),
    ],
)
def test_the_operator_opens_what_he_lists(url: str, addresses: list[str]) -> None:
    """A listed name is called wherever it leads, a listed network whoever leads there."""
    check(target_of(url), OPEN)
    check(target_of(url), OPEN, addresses)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://n8n:5679/", ["10.9.9.9"]),
        ("http://other.test/", ["10.2.0.1"]),
        ("http://other.test/", ["8.8.8.8"]),
        ("https://other.test/", ["10.1.2.3", "10.2.0.1"]),
        ("https://10.1.2.3:8443/", ["10.1.2.3"]),
        ("https://[fd00::1]/", ["fd00::1"]),
    ],
)
def test_what_is_not_listed_stays_closed(url: str, addresses: list[str]) -> None:
    """An entry opens no other port, no neighbour, and http for nobody else."""
    with pytest.raises(ValueError, match=r"^(the|port) "):
        check(target_of(url), OPEN, addresses)


@pytest.mark.parametrize(
    "text", ["n8n:0", "n8n:70000", "n8n:x", "a b:c:d", "10.0.0.1/8", "1.2.3", "*", "[::1"]
)
def test_a_wrong_list_is_refused(text: str) -> None:
    """A typing mistake in WEBHOOK_ALLOW is told at the start, and opens nothing."""
    with pytest.raises(ValueError, match="is not a host or a network"):
        Allowed(text)


def test_a_log_names_no_secret() -> None:
    """What is written of a target holds neither path nor query."""
    assert str(target_of("https://hooks.example/T0K3N?key=hush")) == "https://hooks.example"
