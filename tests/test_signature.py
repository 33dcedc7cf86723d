"""Who receives a webhook can tell that it is ours with any library of Standard Webhooks."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from runner import signature

OLD, NEW = (
    f"whsec_{base64.b64encode(bytes([n]) * 24).decode()}" for n in (1, 2)
)  # fmt: skip
BODY = '{"a": "é"}'.encode()


def test_the_reference_accepts_our_signature() -> None:
    """The library of the standard takes what we sign, and nothing that was changed afterwards."""
    headers = signature.headers("job-1-completed", BODY, time.time(), signature.secrets(OLD))
    assert Webhook(OLD).verify(BODY, headers) == {"a": "é"}
    for changed in (
        {"webhook-id": "job-2-completed"},
        {"webhook-timestamp": str(int(time.time()) + 2)},
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(OLD).verify(BODY, {**headers, **changed})
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY + b" ", headers)


def test_a_secret_is_replaced_without_a_gap() -> None:
    """While two secrets are set, receivers that know either of them accept the message."""
    headers = signature.headers("x", BODY, time.time(), signature.secrets(f"{NEW} {OLD}"))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (OLD, NEW):
        Webhook(secret).verify(BODY, headers)


def test_the_published_vector() -> None:
    """The signature of a fixed message never changes."""
    keys = signature.secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330.9, keys
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "text",
    ["", "hunter2", "whsec_", "whsec_c2hvcnQ=", OLD[6:], f"{OLD} hunter2", "whsec_" + "A" * 99],
)
def test_a_weak_secret_is_refused(text: str) -> None:
    """What is not `whsec_` with 24 to 64 bytes signs nothing."""
    with pytest.raises(ValueError, match="must be whsec_"):
        signature.secrets(text)
