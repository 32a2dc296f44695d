"""The order of a training: from `model_code.data.load()` to artifacts/, or to a report that says why not."""

from pathlib import Path
from typing import Any

from training import artifacts, card, gate, inputs, proof, report, summary
from training.baseline import baseline
from training.declared import Declared, TrainingError
from training.evaluation import evaluated
from training.examples import wrong_examples
from training.export import export
from training.report.result import Result
from training.served import Served
from training.split import split
from training.steps import step
from training.table import columns_of, loaded, prepared
from training.task import task_of


def train(declared: Declared, repository: Path, folder: Path, *, if_changed: bool = False) -> None:
    """Train what is declared and put the result into `folder`, which the caller has locked.

    Raises TrainingError where the model isn't good enough; then the folder holds the report and nothing else. Any
    other TrainingError leaves the folder as it was.
    """
    contract = declared.contract
    with step("load") as it:
        table = loaded(declared.load())
        data_sha256 = inputs.sha256_of_table(table)
        inputs_sha256 = inputs.sha256_of_inputs(repository, data_sha256)
        it.found = f"{len(table):,} rows, {len(table.columns)} columns"
    if if_changed and artifacts.up_to_date(folder, inputs_sha256):
        print(f"{folder.name}/ is up to date")
        return
    with step("check") as it:
        task = task_of(contract, list(table.columns))
        table = prepared(table, contract, task)
        it.found = f"every row fits model_code/schema.py; the task is {task.name}"
    with step("split") as it:
        rows, test, how = split(table, task, declared.split)
        it.found = f"{len(rows):,} rows to train on, {len(test):,} held out ({how})"
    with step("fit") as it:
        model = declared.fit(rows)
        it.found = type(model).__name__
    with step("evaluate") as it:
        metrics, notes = evaluated(declared, model, rows, test, task)
        it.found = "held out: " + (", ".join(f"{m.name} {gate.shown(m.held_out)}" for m in metrics) or "no metrics")
    with artifacts.temporary(folder) as made:
        with step("export") as it:
            files = declared.export(model, table) if declared.export else export(model, contract, task)
            write_files(made, files)
            it.found = ", ".join(f"{name} ({len(content):,} bytes)" for name, content in files.items())
        with step("compare") as it:
            served = Served(declared.Model, made, contract)
            columns = columns_of(table, contract)
            comparison = proof.compare(model, table, served.predict(columns), contract, task)
            test_columns = columns_of(test, contract)
            answers = served.predict(test_columns)
            it.found = comparison.sentence
        with step("examples") as it:
            number, wrong = wrong_examples(served, repository)
            it.found = f"{number} answered as expected" if not wrong else "; ".join(wrong)
        with step("gate") as it:
            missed = [metric.miss for metric in metrics if metric.miss]
            reasons = [*missed, *([] if comparison.agree else [comparison.sentence]), *wrong]
            it.found = "passed" if not reasons else "not passed"
        description = card.origin(repository) | {
            "task": task.name,
            "files": card.files_of(files),
            "inputs_sha256": inputs_sha256,
            "data": {"sha256": data_sha256, "rows": len(table), "train_rows": len(rows), "test_rows": len(test)},
            "schema": card.schema_of(contract),
            "baseline": {
                "instance": baseline(contract.inputs, columns, test_columns),
                "prediction": baseline(contract.outputs, answers),
            },
            **card.metrics_of(metrics),
            "verdict": {"passed": not reasons, "reasons": reasons, "examples": number, "export": comparison.sentence},
            "thresholds": card.thresholds_of(metrics),
            "libraries": card.libraries(repository),
        }
        with step("report") as it:
            result = Result(
                card=description,
                contract=contract,
                task=task,
                metrics=metrics,
                notes=notes,
                reasons=reasons,
                comparison=comparison.sentence,
                examples=number,
                test=test,
                answers=answers,
            )
            (made / artifacts.REPORT).write_text(report.page(result, declared, model), encoding="utf-8")
            it.found = f"{folder.name}/{artifacts.REPORT}"
        if reasons:
            for name in files:
                (made / name).unlink()
        else:
            (made / artifacts.CARD).write_bytes(card.to_json(description))
        artifacts.replace(folder, made)
    if reasons:
        summary.write(result)
        raise TrainingError(
            "\n  ".join(["The model is not good enough and was not exported:", *reasons])
            + f"\nSee {folder.name}/{artifacts.REPORT}; the thresholds are in model_code/train.py."
        )
    print(f"{folder.name}/ holds {description['name']} {description['version']}")


def write_files(made: Path, files: Any) -> None:
    """Write what `export` returned. Raises TrainingError where that isn't names of files and their contents."""
    if not isinstance(files, dict) or not files or not all(isinstance(it, bytes) for it in files.values()):
        raise TrainingError("export() in model_code/train.py must return a dict of file names and contents (bytes).")
    for name, content in files.items():
        if Path(name).name != name or name.startswith(".") or name in (artifacts.CARD, artifacts.REPORT):
            raise TrainingError(f"export() in model_code/train.py returned the file name {name!r}: choose another one.")
        (made / name).write_bytes(content)
