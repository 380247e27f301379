"""Secrets in URLs: after a whole path with failures, no byte of store, home and output has them, but one table."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_resources.maintenance.forgetting import forget
from mm_resources.registry.registry import Registry
from tests.resources.server import Server, status

# Planted in each place where a URL can hold one; none of them is a word of anything else.
SECRETS = [f"PLANTED{number}Secret" for number in range(20)]
# Keys in the environment, as of a bucket, a hub and a database.
KEYS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "PGPASSWORD", "AZURE_STORAGE_KEY")
ENVIRONMENT = "PLANTEDEnvironmentSecret"
TEXT = b"a text of many words about the harbour and its ships in the morning, number %d\n"


@pytest.fixture
def web() -> Iterator[Server]:
    import threading

    server = Server("127.0.0.1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write_spec(work: Path, web: Server) -> None:
    host = web.url.removeprefix("http://")
    for number in range(7):
        web.bodies[f"/{number}.txt"] = TEXT % number
    web.answers["/moved.txt"] = status(302, Location=f"http://127.0.0.1:1/closed?token={SECRETS[0]}")
    urls = [
        f"{web.url}/0.txt?sig={SECRETS[1]}",
        f"{web.url}/1.txt?X-Amz-Signature={SECRETS[2]}&X-Amz-Credential={SECRETS[3]}&X-Amz-Date=20261130T000000Z",
        f"{web.url}/2.txt?id=7&token={SECRETS[4]}",
        f"http://alice:{SECRETS[5]}@{host}/3.txt",
        f"{web.url}/gone.txt?key={SECRETS[6]}",
        f"{web.url}/moved.txt?access_token={SECRETS[7]}",
        f"http://127.0.0.1:1/closed?password={SECRETS[8]}",
        f"http://[bad:url/?k={SECRETS[9]}",
        f"s3bad://u:{SECRETS[10]}@h/x?y={SECRETS[10]}",
        f"{web.url}/4.txt#frag={SECRETS[11]}",
        f"{web.url}/5.txt",
        f"{web.url}/6.txt?zz={SECRETS[14]}",
        f"{web.url}/gone.txt?apikey2={SECRETS[15]}",
        f"//alice:{SECRETS[16]}@{host}/7.txt",
        f"http://al%69ce%3A{SECRETS[17]}@{host}/8.txt",
        f"{web.url}/gone.txt?page=1&{SECRETS[18]}",
        f"http:\\\\bob:{SECRETS[19]}@{host}\\9.txt",
    ]
    lines = ["url,label,page", *(f"{url},x,see {url}" for url in urls)]
    (work / "urls.csv").write_text("\n".join(lines) + "\n")
    web.bodies["/one.txt"] = TEXT % 99
    web.bodies["/two.txt"] = TEXT % 100
    policy = '{retries: 0, timeout_s: 5, allow_private: ["127.0.0.0/8"]}'
    (work / "spec.yaml").write_text(
        f"""
name: planted
version: v1
schema: {{page: string}}
sources:
  - {{name: list, modality: text, uri: urls.csv, record: {{url: url, label: label}}, fetch: {policy}}}
  - {{name: one, modality: text, uri: "{web.url}/one.txt?sig={SECRETS[12]}", fetch: {policy}}}
  - {{name: two, modality: text, uri: "{web.url}/two.txt?token=${{env:MM_SECRET_TWO}}", fetch: {policy}}}
embedders: {{text: [wordllama]}}
curation: {{rules: {{too_short: {{action: "off"}}}}}}
gates: {{max_failed_share: 1.0}}
"""
    )


def files_with(secret: str, *folders: Path) -> list[str]:
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


def rows_with(secrets: list[str], store: Path) -> dict[str, set[str]]:
    """Return the secrets that the rows of each Lance table hold, since its files may be compressed."""
    import lance

    found: dict[str, set[str]] = {}
    for table in store.rglob("*.lance"):
        if (table / "_versions").is_dir():
            words = str(lance.dataset(str(table)).to_table().to_pylist())
            if held := {secret for secret in secrets if secret in words}:
                found[str(table.relative_to(store))] = held
    return found


def packed_files_with(secrets: list[str], *folders: Path) -> list[str]:
    """Return compressed files that hold a secret."""
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*.gz")
        if any(secret.encode() in gzip.decompress(path.read_bytes()) for secret in secrets)
    ]


def test_no_byte_of_store_and_home_holds_a_secret_but_one_table(
    work: Path, web: Server, mm: Any, tmp_path: Path
) -> None:
    write_spec(work, web)
    env = {"MM_SECRET_TWO": SECRETS[13], **dict.fromkeys(KEYS, ENVIRONMENT)}
    printed = ""
    for words in (
        ("register", "spec.yaml"),
        ("backfill", "planted@v1"),
        ("status", "planted@v1", "--drift"),
        ("failures", "planted@v1"),
        ("failures", "planted@v1", "--json"),
        ("report", "planted@v1", "--out", "report.html"),
        ("search", "ships in the harbour", "--modality", "text", "--json"),
        ("export", "planted@v1", "--modality", "text", "--out", "out"),
        ("datasets",),
        ("env",),
        ("register", "--from", "planted@v1", "--print"),
        ("register", "--from", "planted@v1"),
        ("backfill", "planted@v2"),
    ):
        done = mm(*words, **env)
        assert done.returncode in (0, 1), (words, done.stderr)
        printed += done.stdout + done.stderr
        if words[0] == "search":
            explained = mm("explain", json.loads(done.stdout)[0]["feature_id"], **env)
            assert explained.returncode == 0, explained.stderr
            printed += explained.stdout
    store, home = work / ".mm" / "store", work / ".mm" / "dagster"
    assert store.is_dir()
    assert home.is_dir()
    (work / "urls.csv").unlink()
    (work / "spec.yaml").unlink()
    assert [secret for secret in (*SECRETS, ENVIRONMENT) if secret in printed] == []
    assert files_with(ENVIRONMENT, work) == []
    everything = [*SECRETS, ENVIRONMENT]
    assert set(rows_with(everything, store)) == {"secrets/urls.lance"}
    assert packed_files_with(everything, work) == []
    held = {secret: files_with(secret, work) for secret in SECRETS}
    table = str(store / "secrets" / "urls.lance")
    assert {secret: paths for secret, paths in held.items() if not all(table in path for path in paths)} == {}
    # The value of a reference, and what no request needs, are in no file at all; the others are in the table.
    assert [place for place, secret in enumerate(SECRETS) if not held[secret]] == [*(0, 5, 9, 10, 13, 16, 17)]


def test_samples_behind_secrets_are_fetched_and_have_stable_keys(
    work: Path, web: Server, platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(work, web)
    monkeypatch.setenv("MM_SECRET_TWO", SECRETS[13])
    version = platform.register(work / "spec.yaml")
    assert platform.backfill(version)["text"].status == "published"
    columns = ["key", "source_uri", "status"]
    rows = (
        platform.catalog.tables.read("raw_assets", platform.cell(version, "text"), columns)
        .read_all()
        .to_pylist()
    )
    blinded = f"{web.url}/6.txt?zz=~{hashlib.sha256(SECRETS[14].encode()).hexdigest()[:16]}"
    fetched = {row["key"]: row["source_uri"] for row in rows if row["status"] == "fetched"}
    assert fetched == {
        **{f"{web.url}/{number}.txt": f"{web.url}/{number}.txt" for number in (0, 1, 4, 5)},
        f"{web.url}/2.txt?id=7": f"{web.url}/2.txt?id=7",
        blinded: blinded,
        "one.txt": f"{web.url}/one.txt",
        "two.txt": f"{web.url}/two.txt",
    }
    # Signed anew, the same objects have the same keys, and the second version changes nothing.
    spec = (work / "urls.csv").read_text()
    (work / "urls.csv").write_text(
        spec.replace(SECRETS[1], "SignedAnew77").replace(SECRETS[4], "SignedAnew78")
    )
    registry: Registry = platform.registry
    drift = registry.drifts.check(registry.spec("planted", "v1"), registry.spec("planted", "v1").sources[0])
    assert not drift.has_changed, str(drift)


def test_a_reference_that_cannot_be_resolved_fails_its_own_samples(
    work: Path, web: Server, platform: Any
) -> None:
    write_spec(work, web)
    version = platform.register(work / "spec.yaml")
    result = platform.backfill(version)["text"]
    assert result.status == "blocked"
    assert "MM_SECRET_TWO is not set" in result.reason


def test_a_forgotten_sample_leaves_no_secret(work: Path, web: Server, platform: Any) -> None:
    for number in range(2):
        web.bodies[f"/{number}.txt"] = TEXT % number
    urls = [f"{web.url}/{number}.txt?sig={SECRETS[number]}" for number in range(2)]
    (work / "urls.csv").write_text("\n".join(["url", *urls]) + "\n")
    (work / "spec.yaml").write_text(
        "{name: few, version: v1, embedders: {text: [wordllama]}, sources: [{name: list, modality: text, "
        'uri: urls.csv, record: {url: url}, fetch: {allow_private: ["127.0.0.0/8"]}}]}'
    )
    version = platform.register(work / "spec.yaml")
    platform.backfill(version)
    store = Path(platform.settings.store)
    assert files_with(SECRETS[0], store)
    rows = platform.catalog.tables.read(
        "dataset_registry", platform.cell(version, "text"), ["sample_id", "key"]
    )
    names = {row["key"]: row["sample_id"] for row in rows.read_all().to_pylist()}
    forget(platform.catalog, names[f"{web.url}/0.txt"])
    assert files_with(SECRETS[0], store) == []
    assert files_with(SECRETS[1], store), "the other sample is fetched as before"
