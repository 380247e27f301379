"""Help and the errors of arguments load no engine: a fresh process runs them for every command, one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import typer

from mm_assets.cli.main import app

COMMANDS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
# Words of each command that are wrong, and what the error says.
MISTAKES = [
    ("init absent", "absent is not a folder"),
    ("register", "pass a spec file, or --from"),
    ("register spec.yaml --as v2", "--as and --print are options of --from"),
    ("register --from birds", "--from: 'birds' is not DATASET@VERSION"),
    ("register absent.yaml", "absent.yaml"),
    ("datasets birds", "unexpected extra argument"),
    ("backfill birds", "'birds' is not DATASET@VERSION"),
    ("backfill birds@v1 --mode fast", "--mode 'fast' is not known; there are: auto, inline, ray"),
    ("backfill birds@v1 --wait", "--wait is an option of --launch"),
    ("backfill birds@v1", "birds@v1 is not registered"),
    ("curate birds --what-if a.b=1", "'birds' is not DATASET@VERSION"),
    ("curate birds@v1 --what-if too_short", "is not RULE.PARAMETER=VALUE"),
    ("curate birds@v1 --what-if shortness.n=1", "no rule is named 'shortness'"),
    ("label --dataset-version birds", "'birds' is not DATASET@VERSION"),
    ("cost birds", "'birds' is not DATASET@VERSION"),
    ("cost birds@v1 --predict 0", "should be greater than or equal to"),
    ("report birds --out r.html", "'birds' is not DATASET@VERSION"),
    ("report birds@v1 --out absent/r.html", "there is no folder absent"),
    ("failures", "name a DATASET@VERSION"),
    ("failures birds", "'birds' is not DATASET@VERSION"),
    ("failures birds@v1 --stage probe", "--stage 'probe' is not known"),
    ("failures birds@v1 --to here", "add --open SAMPLE_ID"),
    ("redrive birds", "'birds' is not DATASET@VERSION"),
    ("redrive birds@v1 --stage probe", "--stage 'probe' is not known"),
    ("status birds", "'birds' is not DATASET@VERSION"),
    ("search cat", "nothing is published of"),
    ("search cat --modality image --dataset-version birds", "'birds' is not DATASET@VERSION"),
    (
        "search cat --modality image --mode fast",
        "--mode 'fast' is not known; there are: vector, text, hybrid",
    ),
    ("search cat --modality image --find all", "--find 'all' is not known"),
    ("search cat --modality image --group-by label", "--group-by 'label' is not known"),
    ("search cat --modality image --where label=?", "the filter 'label=?' is invalid: parameters such as ?"),
    (
        "search cat --modality image --where random()<0.5",
        "the filter 'random()<0.5' is invalid: random has another value each time",
    ),
    (
        "export birds@v1 --out o --modality text --modality image --embedder a --embedder b",
        "--embedder: name each modality of --modality once, such as --embedder text=NAME",
    ),
    ("explain", "missing argument 'ID'"),
    ("explain 00 --dataset-version birds", "'birds' is not DATASET@VERSION"),
    ("try minilm --dataset-version birds --modality text", "'birds' is not DATASET@VERSION"),
    ("diff birds@v1 birds", "'birds' is not DATASET@VERSION"),
    ("promote birds", "'birds' is not DATASET@VERSION"),
    ("promote birds@v1 --to latest", "--to 'latest' is not known; there are: candidate, champion"),
    ("promote birds@v1 --back", "alias 'v1' is not known; there are: candidate, champion"),
    ("promote birds --back --to latest", "--to 'latest' is not known; there are: candidate, champion"),
    ("promote ../x@production --back", "dataset name '../x' must match"),
    ("sql select", "names no table"),
    ("trace birds", "'birds' is no digest of a training set"),
    ("trace 12345678", "no training set with the digest 12345678 is recorded"),
    ("trace absent/manifest.json", "absent/manifest.json is no file"),
    ("forgotten absent", "absent has no _samples.parquet"),
    ("sql", "give one query, or --save FILE"),
    ("sql select --save a.duckdb", "give one query, or --save FILE"),
    ("sql select --dataset-version birds@v1", "--dataset-version is an option of --save"),
    ("sql --save a.duckdb --dataset-version birds", "'birds' is not DATASET@VERSION"),
    ("pick birds -n 5", "'birds' is not DATASET@VERSION"),
    ("pick birds@v1 -n 5 --by spread", "--by 'spread' is not known; there are: diversity, coverage"),
    ("pick birds@v1 -n 5 --by diversity,coverage", "--by names several methods: diversity, coverage"),
    ("pick birds@v1 -n 5 --quota a=1", "--quota is an option of --by with label"),
    ("pick birds@v1 -n 5 --by label --quota a", "--quota 'a' is not LABEL=N"),
    ("pick birds@v1 -n 5 --by label --quota a=9", "--quota: 9 samples are more than the 5 of -n"),
    ("export birds@v1 --out o --modality text --where 1)OR(1", "the filter '1)OR(1' is invalid: a ) closes"),
    ("export birds --out o --modality text", "'birds' is not DATASET@VERSION"),
    (
        "export birds@v1 --out o --modality text --format csv",
        "--format 'csv' is not known; there are: atlas",
    ),
    ("audit birds", "'birds' is not DATASET@VERSION"),
    ("forget", "missing argument"),
    ("unregister", "missing argument"),
    ("env birds", "unexpected extra argument"),
    ("serve birds", "unexpected extra argument"),
    ("doctor --sample -1", "should be greater than or equal to"),
    ("upkeep --older-than-days -1", "should be greater than or equal to"),
    ("gc --older-than-days -1", "should be greater than or equal to"),
]
# Runs each command in turn; prints its exit code, its error, and the engines that are loaded after it.
SCRIPT = """
import contextlib, io, json, sys
from mm_assets.cli import main
told = []
for words in json.loads(sys.argv[1]):
    sys.argv, stream, code = ["mm", *words], io.StringIO(), 0
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        try:
            main.main()
        except SystemExit as end:
            code = end.code
    engines = [name for name in ("dagster", "ray", "lance", "lancedb", "torch") if name in sys.modules]
    told.append([code, " ".join(stream.getvalue().replace("│", " ").split()), engines])
    if engines:
        break
print(json.dumps(told))
"""


def outcomes(words: list[list[str]], tmp_path: Path) -> list[tuple[int, str, list[str]]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin", "COLUMNS": "400", "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(item) for item in json.loads(done.stdout)]


def test_help(tmp_path: Path) -> None:
    commands = [["--help"], *([name, "--help"] for name in COMMANDS)]
    told = outcomes(commands, tmp_path)
    for words, (code, text, engines) in zip(commands, told, strict=False):
        assert (words, code, engines) == (words, 0, [])
        assert "Usage: mm" in text
    assert len(told) == len(commands)


def test_an_unknown_option(tmp_path: Path) -> None:
    commands = [[name, "--no-such-option"] for name in COMMANDS]
    told = outcomes(commands, tmp_path)
    for words, (code, text, engines) in zip(commands, told, strict=False):
        assert (words, code, engines) == (words, 2, [])
        assert "No such option" in text
    assert len(told) == len(commands)


def test_wrong_arguments(tmp_path: Path) -> None:
    assert {words.split()[0] for words, _ in MISTAKES} == set(COMMANDS)
    commands = [words.split() for words, _ in MISTAKES]
    told = outcomes(commands, tmp_path)
    for (words, expected), (code, text, engines) in zip(MISTAKES, told, strict=False):
        assert (words, code, engines) == (words, 2, [])
        assert expected.lower() in text.lower()
    assert len(told) == len(commands)
