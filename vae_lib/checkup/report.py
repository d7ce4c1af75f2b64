"""What `checkup` found: as text, as a dict, as a table in Jupyter, and as a picture."""

import html
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch.distributions import Normal

from vae_lib.checkup.answers import NotReadable
from vae_lib.checkup.exhibits import EXHIBITS
from vae_lib.loss_translator import Translation
from vae_lib.plotting import STYLE, picture


class Finding(NamedTuple):
    """What was found about one exhibit: the verdict is "shown", "clear" or "not examined", the evidence a sentence."""

    exhibit: str
    verdict: str
    evidence: str
    fault: str
    cure: str
    page: str


@dataclass(frozen=True)
class Report:
    """What `checkup` found. `shown` lists the exhibits that the model shows; `remarks` are facts that are no fault.

    `translation` says what the loss means (page 06), None where it was not given or not read; `noise` holds up to 5,000
    draws of (z - mu) / exp(log_var / 2), in training mode, whose standard deviation should be 1.
    """

    findings: tuple
    remarks: tuple
    translation: Translation | None
    noise: torch.Tensor | None

    def with_verdict(self, verdict):
        """The findings that have this verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]

    @property
    def shown(self):
        """The exhibits that the model shows."""
        return [finding.exhibit for finding in self.with_verdict("shown")]

    @property
    def verdict(self):
        """One line."""
        rest = len(self.with_verdict("not examined"))
        count = len(self.shown)
        first = f"{count} fault{'s' * (count > 1)}: {', '.join(self.shown)}" if count else "no fault found"
        return f"{first} ({len(self.findings) - rest} of {len(self.findings)} exhibits examined)"

    def __str__(self):
        lines = [self.verdict]
        for finding in self.with_verdict("shown"):
            lines += ["", f"{finding.exhibit}: {finding.fault}", f"  Evidence: {finding.evidence}.",
                      f"  What to do: {finding.cure}", f"  Explained in {finding.page}"]
        lines += [""] * bool(self.remarks) + [f"Remark: {remark}." for remark in self.remarks]
        missing = {}
        for finding in self.with_verdict("not examined"):
            missing.setdefault(finding.evidence, []).append(finding.exhibit)
        lines += [""] * bool(missing) + [f"Not examined ({why}): {', '.join(names)}" for why, names in missing.items()]
        return "\n".join(lines)

    def as_dict(self):
        """Verdict, findings and remarks as dicts, lists and strings, ready for json."""
        return {"verdict": self.verdict, "findings": [finding._asdict() for finding in self.findings],
                "remarks": list(self.remarks), "translation": self.translation and self.translation._asdict()}

    def picture(self):
        """The noise of z in training as a histogram beside N(0, 1), with alternative text; None if not measured."""
        if self.noise is None:
            return None
        z = torch.linspace(-4, 4, 201)
        with plt.rc_context(STYLE):
            fig, ax = plt.subplots(figsize=(4.8, 2.6))
            ax.hist(self.noise.numpy(force=True), bins=61, range=(-4, 4), density=True, label="drawn")
            ax.plot(z, Normal(0.0, 1.0).log_prob(z).exp(), label="N(0, 1)")
            ax.set(xlabel="(z - mu) / sigma", ylabel="density")
            ax.legend()
        return picture(fig, "Histogram of the noise that the model draws, of standard deviation "
                            f"{self.noise.std():.3g}, beside the density of N(0, 1) that the KL assumes.")

    def _repr_html_(self):
        order = ("shown", "not examined", "clear")
        rows = [(found.exhibit, found.verdict, found.evidence, *((found.cure, found.page) * (verdict == "shown")))
                for verdict in order for found in self.with_verdict(verdict)]
        cells = ["".join(f"<td style='text-align: left'>{html.escape(text)}</td>" for text in row) for row in rows]
        head = "".join(f"<th>{name}</th>" for name in ("exhibit", "verdict", "evidence", "what to do", "explained in"))
        remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in self.remarks)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return (f"<p><strong>{html.escape(self.verdict)}</strong></p><ul>{remarks}</ul>"
                f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


class Results:
    """What has been found so far: found, {exhibit: (shown, evidence)}; why not, in errors; and remarks."""

    def __init__(self):
        self.found, self.errors, self.remarks = {}, {}, []

    def shows(self, exhibit):
        """Whether the exhibit has been found."""
        return bool(self.found.get(exhibit, (False,))[0])

    def examine(self, exhibits, work, *arguments):
        """What work(*arguments) returns, noted if it is a dict like `found`; None where it raises NotReadable.

        The reason is then noted for the exhibits. A dict may hold a list of remarks besides.
        """
        try:
            result = work(*arguments)
        except NotReadable as reason:
            self.errors.update(dict.fromkeys(exhibits, str(reason)))
            return None
        if isinstance(result, dict):
            self.remarks += result.pop("remarks", [])
            self.found.update(result)
        return result

    def report(self, translation, noise):
        """The Report of all exhibits."""
        findings = []
        for exhibit, texts in EXHIBITS.items():
            shown, evidence = self.found.get(exhibit, (None, self.errors.get(exhibit, "")))
            verdict = "not examined" if shown is None else "shown" if shown else "clear"
            findings.append(Finding(exhibit, verdict, evidence, *texts))
        return Report(tuple(findings), tuple(self.remarks), translation, noise)
