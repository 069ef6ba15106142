"""An organisation's own rules over the gate's report, written in Rego (Open Policy Agent's language).

The policy sees everything that is known and can only say no: what `deny` holds refuses the release, and nothing in the
file can make a refused one pass. regopy runs it inside the process, so there is no policy server to operate; the price
is its subset of OPA's built-in functions. A policy without a rule `deny` in its package is an error, not a yes: a
misspelt package would otherwise let everything through in silence.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.kernel.errors import Permanent

RULE = "data.evergreen.gate.deny"


@dataclass(frozen=True)
class RegoPolicy:
    """`name` is what sentences call the file, `text` its content."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def list_denials(self, report: Mapping[str, Any]) -> tuple[str, ...]:
        """The reasons to refuse, sorted. Raises `Permanent` with the line when the policy cannot be run."""
        from regopy import Interpreter, LogLevel, RegoError

        interpreter = Interpreter()
        interpreter.log_level = LogLevel.NONE  # it would print its own errors beside our sentence
        interpreter.strict_built_in_errors = True  # else a rule that fails is a rule that does not deny
        try:
            interpreter.add_module(self.name, self.text)
            interpreter.set_input_term(json.dumps(drop_nulls(report), allow_nan=False))
            answer = str(interpreter.query(RULE))
        except (RegoError, json.JSONDecodeError) as error:  # the latter holds what the rule failed of
            raise Permanent(self._describe_error(str(getattr(error, "doc", error)))) from error
        return tuple(sorted(map(str, self._parse_denials(answer))))

    def _parse_denials(self, text: str) -> list[Any]:
        """A set comes back as a list; `undefined` is no JSON."""
        try:
            [answer] = json.loads(text)["expressions"]
            if isinstance(answer, list):
                return answer
        except (json.JSONDecodeError, ValueError):
            pass
        raise Permanent(
            f"The policy {self.name} answers no set {RULE.removeprefix('data.')}; begin it with "
            "`package evergreen.gate` and write rules `deny contains reason if { ... }` of functions that exist."
        )

    def _describe_error(self, failure: str) -> str:
        message = re.search(r"\(errormsg \d+:(.*?)\)\n", failure)
        offset = re.search(r"\(error [^|]*\|(\d+)\|", failure)
        line = offset and self.text.encode()[: int(offset[1])].count(b"\n") + 1
        where = f", line {line}" if line else ""
        what = message[1] if message else " ".join(failure.split())
        return f"The policy {self.name} cannot be run{where}: {what}; correct the file or gate.policy."


def drop_nulls(value: Any) -> Any:
    """What is not known is not there: engines order null differently, and one metric less would turn a rule round."""
    if isinstance(value, Mapping):
        return {name: drop_nulls(each) for name, each in value.items() if each is not None}
    return [drop_nulls(each) for each in value if each is not None] if isinstance(value, list | tuple) else value


def read(path: Path) -> RegoPolicy:
    """Raises `Permanent` when there is no such file."""
    try:
        return RegoPolicy(path.name, path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(f"The policy {path} cannot be read: {error}; correct gate.policy in the manifest.") from error
