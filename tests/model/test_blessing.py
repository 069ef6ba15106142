"""What a signature is believed for, and every way it is not."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.kernel.errors import KeyInvalid, NotBlessed
from include.kernel.job import Intent
from include.model.blessing import blessing as bl
from include.model.blessing.approval import Approval
from tests.blessed import KEY, OTHER_KEY, REPORT, document, envelope, keyid

TRUSTED = {keyid(KEY): KEY.public_key()}
YES = Approval(who="ada", why="the old one is worse", at="2026-08-02T10:00:00Z")


def believed(text: str, version: str = "7", digest: str | None = "7" * 64, trusted=TRUSTED) -> bl.Blessing:
    return bl.verify(text, trusted, "credit-risk", version, digest)


def changed(text: str, **fields) -> str:
    """The same envelope with something else in its document, as somebody without the key would do it."""
    outer = json.loads(text)
    content = json.loads(base64.b64decode(outer["payload"])) | fields
    return json.dumps(outer | {"payload": base64.b64encode(json.dumps(content).encode()).decode()})


GOOD = envelope(document())


class TestBelieved:
    def test_a_blessing_signed_by_the_standards_text_is_believed(self):
        assert believed(GOOD).model_dump(mode="json") == document()

    def test_what_we_sign_is_believed_and_the_same_blessing_is_signed_the_same_way(self):
        blessing = bl.Blessing.model_validate(document())
        assert believed(bl.sign(blessing, KEY)) == blessing
        assert bl.sign(blessing, KEY) == bl.sign(blessing, KEY)

    def test_while_a_key_is_being_changed_both_are_believed(self):
        both = TRUSTED | {keyid(OTHER_KEY): OTHER_KEY.public_key()}
        assert believed(GOOD, trusted=both) == believed(envelope(document(), OTHER_KEY), trusted=both)

    def test_an_inconclusive_gate_with_a_persons_yes_is_believed_and_names_the_person(self):
        content = document(verdict="inconclusive", approval=YES.model_dump(mode="json"))
        assert believed(envelope(content)).approval == YES


TAMPERED = {
    "an altered digest": (changed(GOOD, digest="8" * 64), "was altered"),
    "an altered version": (changed(GOOD, version="8"), "was altered"),
    "an altered intent": (changed(envelope(document(intent="historical")), intent="live"), "was altered"),
    "a verdict that was turned": (changed(GOOD, verdict="inconclusive"), "was altered"),
    "checks taken away": (changed(GOOD, checks=document()["checks"] * 2), "was altered"),
    "an approver put in": (changed(GOOD, approval=YES.model_dump(mode="json")), "was altered"),
    "another manifest": (changed(GOOD, manifest="e" * 64), "was altered"),
    "another signer": (envelope(document(), OTHER_KEY), f"blessed by key {keyid(OTHER_KEY)}"),
    "another signer under our name": (
        envelope(document(), OTHER_KEY).replace(keyid(OTHER_KEY), keyid(KEY)),
        "was altered",
    ),
    "no signature": (json.dumps(json.loads(GOOD) | {"signatures": []}), "without a signature"),
    "another kind of document": (envelope(document(), kind="application/json"), "without a signature as a blessing"),
    "a signature that is no base64": (
        json.dumps(json.loads(GOOD) | {"signatures": [{"keyid": keyid(KEY), "sig": "%"}]}),
        "was altered",
    ),
    "a blessing from before signatures": (
        json.dumps({"version": "7", "digest": "7" * 64, "run_key": "k", "gate": "passed"}),
        "an earlier kind, without a signature; train again",
    ),
    "something else": ("yes", "no signed blessing"),
    "a signed document that is no blessing": (envelope({"digest": "7"}), "not valid at"),
    "a signed blessing with a field of its own": (envelope(document(force=True)), "not valid at force"),
    "a historical training": (envelope(document(intent="historical")), "a historical training and is never deployed"),
    "a rehearsal": (envelope(document(intent="rehearsal")), "a rehearsal training and is never deployed"),
    "another version's": (envelope(document(version="6")), "the blessing of version 6"),
    "another model's": (envelope(document(model="churn")), "version 7 of churn"),
    "another artifact's": (envelope(document(digest="6" * 64)), "has the artifact 777777777777, but its blessing"),
    "an inconclusive gate nobody answered for": (envelope(document(verdict="inconclusive")), "nobody approved"),
    "a refused model": (envelope(document(verdict="refused")), "not valid at verdict"),
}


@pytest.mark.parametrize("text, said", TAMPERED.values(), ids=TAMPERED)
def test_it_is_refused_in_one_sentence(text, said):
    with pytest.raises(NotBlessed) as caught:
        believed(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(("Version 7 of credit-risk", "The gate")) and "\n" not in str(caught.value)


def test_without_a_trusted_key_nothing_is_believed():
    with pytest.raises(NotBlessed, match="trusted is none"):
        believed(GOOD, trusted={})


@given(st.integers(0, len(base64.b64decode(json.loads(GOOD)["payload"])) - 1), st.integers(1, 255))
def test_no_byte_of_the_document_can_be_changed(place, mask):
    outer = json.loads(GOOD)
    body = bytearray(base64.b64decode(outer["payload"]))
    body[place] ^= mask
    with pytest.raises(NotBlessed, match="was altered"):
        believed(json.dumps(outer | {"payload": base64.b64encode(bytes(body)).decode()}))


class TestMaking:
    @pytest.mark.parametrize("intent", [Intent.HISTORICAL, Intent.REHEARSAL])
    def test_only_a_live_training_is_signed(self, intent):
        with pytest.raises(NotBlessed, match="never blessed"):
            bl.sign(bl.Blessing.model_validate(document(intent=intent)), KEY)

    @pytest.mark.parametrize(
        "report, approval, said",
        [
            (REPORT | {"verdict": "inconclusive"}, None, "nobody approved"),
            (REPORT | {"verdict": "refused"}, None, "nobody's approval replaces a pass"),
            (REPORT | {"verdict": "refused"}, YES, "nobody's approval replaces a pass"),
            (REPORT | {"checks": []}, YES, "no check"),
        ],
    )
    def test_what_the_gate_did_not_pass_is_not_blessed(self, report, approval, said):
        with pytest.raises(NotBlessed, match=said):
            bl.check_blessable(report, Intent.LIVE, approval)

    def test_a_person_may_say_yes_where_the_rows_could_not(self):
        bl.check_blessable(REPORT | {"verdict": "inconclusive"}, Intent.LIVE, YES)

    def test_every_check_is_kept_and_a_number_that_is_none_is_none(self):
        check = REPORT["checks"][0]
        odd = check | {"name": "odd", "value": float("nan"), "high": float("inf"), "threshold": None, "blocks": False}
        kept = bl.list_findings({"checks": [check, odd]})
        assert [(found.name, found.value, found.high, found.blocks) for found in kept] == [
            ("auc", 0.8, 0.85, True),
            ("odd", None, None, False),
        ]

    def test_the_reports_hash_does_not_depend_on_the_order_of_its_fields(self):
        assert bl.compute_report_digest(REPORT) == bl.compute_report_digest(dict(reversed(REPORT.items())))
        assert bl.compute_report_digest(REPORT) != bl.compute_report_digest(REPORT | {"rows": 405})


DAYS = [f"{number:064x}" for number in range(5000)]


def slices(number: int) -> list[dict[str, object]]:
    check = document()["checks"][0]
    return [check | {"name": f"slice Market={place}", "value": 0.8 + place / 7919} for place in range(number)]


class TestLongest:
    """The envelope is one tag, which holds 100,000 characters."""

    @pytest.mark.parametrize(
        "days, checks, digested",
        [
            (640, 100, set()),
            (1200, 1, {"data"}),
            (5000, 20, {"data"}),
            (10, 1000, {"checks"}),
            (5000, 1000, {"data", "checks"}),
        ],
    )
    def test_any_window_and_any_number_of_slices_can_be_signed(self, days, checks, digested):
        content = document(data=DAYS[:days], checks=slices(checks))
        text = bl.sign(bl.Blessing.model_validate(content), KEY)
        told = believed(text).model_dump(mode="json")
        assert len(text) <= bl.LONGEST_ENVELOPE
        assert {name for name in told if told[name] != content[name]} - {"format"} == digested
        assert told["format"] == (3 if digested else 2)
        for name in digested:
            assert told[name] == {"count": len(content[name]), "sha256": bl.compute_list_digest(content[name])}

    def test_a_digest_is_of_this_list_and_its_order_alone(self):
        assert bl.compute_list_digest(DAYS) != bl.compute_list_digest(DAYS[::-1]) != bl.compute_list_digest(DAYS[1:])
        assert bl.compute_list_digest(["a", "b"]) == hashlib.sha256(b'["a","b"]').hexdigest()

    def test_what_is_digested_is_signed_again_as_it_is(self):
        """The demo signs a verified blessing with something changed."""
        blessing = believed(bl.sign(bl.Blessing.model_validate(document(data=DAYS)), KEY))
        assert believed(bl.sign(blessing, KEY)) == blessing

    def test_a_list_without_a_check_is_no_blessing_in_either_form(self):
        for nothing in ([], {"count": 0, "sha256": "0" * 64}):
            with pytest.raises(NotBlessed, match="not valid at checks"):
                believed(envelope(document(format=3, checks=nothing)))


class TestKeys:
    @pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl's command")
    def test_a_key_of_openssl_is_read_as_pem_and_as_its_one_line(self, tmp_path: Path):
        secret = tmp_path / "key.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", secret], check=True)
        shown = subprocess.run(
            ["openssl", "pkey", "-in", secret, "-pubout"], check=True, capture_output=True, text=True
        )
        key = bl.parse_private_key(secret.read_text())
        assert set(bl.parse_public_keys(shown.stdout)) == {bl.compute_key_id(key.public_key())} == {keyid(key)}
        line = secret.read_text().splitlines()[1]
        assert bl.compute_key_id(bl.parse_private_key(line).public_key()) == keyid(key)

    def test_several_public_keys_stand_in_one_text(self):
        assert set(bl.parse_public_keys(bl.render_public_pem(KEY) + bl.render_public_pem(OTHER_KEY))) == {
            keyid(KEY),
            keyid(OTHER_KEY),
        }

    @pytest.mark.parametrize("text", ["", "nonsense", bl.render_public_pem(KEY), bl.render_private_pem(KEY) * 2])
    def test_what_is_no_private_key_is_refused_without_repeating_it(self, text):
        with pytest.raises(KeyInvalid) as caught:
            bl.parse_private_key(text)
        assert "openssl genpkey" in str(caught.value) and not (text and text in str(caught.value))

    @pytest.mark.parametrize(
        "text", ["", "nonsense", bl.render_private_pem(KEY), bl.render_public_pem(KEY) + bl.render_private_pem(KEY)]
    )
    def test_a_private_key_among_the_trusted_ones_is_refused_too(self, text):
        with pytest.raises(KeyInvalid):
            bl.parse_public_keys(text)
