"""The picture of a trained model: `artifacts/report.html`, one file that needs nothing beside it."""

import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, classification_report

from model_code import distributions

mpl.rcParams.update({"svg.hashsalt": "report", "svg.fonttype": "none", "font.family": "sans-serif"})

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Model report</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733 }
  table { border-collapse: collapse }
  th, td { padding: .3rem 1rem; text-align: right; border-bottom: 1px solid #d5dce4 }
  th:first-child { text-align: left } svg { max-width: 100%; height: auto } h2 { margin-top: 2.5rem }
</style>
<h1>Model report</h1>
<p>Measured on $held_out held-out rows of $rows.</p>
<h2>Metrics</h2>
$metrics
<h2>Scores of each class</h2>
$scores
<h2>Confusion matrix</h2>
$confusion
<h2>$data</h2>
$distributions
</html>
""")


def write(
    path: Path, table: pd.DataFrame, truth: pd.Series, predicted: Sequence[str], metrics: dict[str, float]
) -> None:
    """Write the report: `table` is all the data, `truth` and `predicted` are the labels of the held-out rows."""
    scores = pd.DataFrame(classification_report(truth, predicted, output_dict=True, zero_division=0)).T
    scores = scores.drop(index="accuracy", errors="ignore").astype({"support": int})
    page = PAGE.substitute(
        rows=len(table),
        held_out=len(truth),
        metrics=pd.Series(metrics).to_frame("value").to_html(float_format="{:.4f}".format, border=0),
        scores=scores.to_html(float_format="{:.3f}".format, border=0),
        confusion=draw_confusion(truth, predicted),
        data=distributions.TITLE,
        distributions=as_svg(distributions.draw(table), distributions.TITLE),
    )
    path.write_text(page, encoding="utf-8")


def draw_confusion(truth: pd.Series, predicted: Sequence[str]) -> str:
    """Return the confusion matrix as SVG."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(truth, predicted, ax=figure.subplots(), cmap="Blues", colorbar=False)
    return as_svg(figure, "Confusion matrix of the held-out rows")


def as_svg(figure: Figure, title: str) -> str:
    """Return the figure as an inline SVG element; without a date, so that equal data gives an equal report."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    svg = buffer.getvalue()
    return f'<figure role="img" aria-label="{html.escape(title)}">{svg[svg.index("<svg") :]}</figure>'
