import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tsbench.data import download as download_module
from tsbench.data.catalog import LongEntry, RemoteFile, find
from tsbench.data.download import download
from tsbench.errors import TsbenchError

CONTENT = bytes(range(256)) * 2400  # several chunks of 64 KiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the first part of the path says how the server behaves."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        behaviour = self.path.split("/")[1]
        asked = self.headers.get("Range")
        server.requests.append((behaviour, asked))
        if behaviour == "missing":
            self.send_error(404)
            return
        content = b"x" * len(CONTENT) if behaviour == "wrong" else CONTENT
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if behaviour == "whole-only":
            first = 0
        if first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if behaviour == "endless":
            content += content
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        end = len(content)
        if behaviour == "breaks-once" and len(server.requests) == 1:
            end = 100_000
        if behaviour == "breaks-always":
            end = min(end, first + 70_000)
        with suppress(ConnectionError):  # the client has seen enough
            self.wfile.write(content[first:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str | None]] = []

    def file(self, *behaviours: str, sha256: str = SHA256, size: int | None = len(CONTENT)) -> RemoteFile:
        port = self.server_address[1]
        urls = tuple(f"http://127.0.0.1:{port}/{behaviour}/a.csv" for behaviour in behaviours)
        return RemoteFile(path="a.csv", urls=urls, sha256=sha256, n_bytes=size)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def entry_with(*files: RemoteFile) -> LongEntry:
    entry = find("ETTh1")
    assert isinstance(entry, LongEntry)
    return entry.model_copy(update={"source": "S", "files": files})


def left_behind(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "S").iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_checked_and_fetched_only_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    entry = entry_with(server.file("ok"))
    for _ in range(2):
        paths = download(entry, None, tmp_path, lambda *event: seen.append(event))
        assert paths == [tmp_path / "S" / "a.csv"]
    assert paths[0].read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert seen[-1] == ("a.csv", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert left_behind(tmp_path) == ["a.csv"]


def test_an_earlier_partial_download_is_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.csv.part").write_bytes(CONTENT[:1234])
    (path,) = download(entry_with(server.file("ok")), None, tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("ok", "bytes=1234-")]


def test_when_the_connection_breaks_off_then_it_goes_on_from_there(server: Server, tmp_path: Path) -> None:
    (path,) = download(entry_with(server.file("breaks-once")), None, tmp_path)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=65536-"]


def test_when_the_connection_keeps_breaking_then_the_part_stays_for_the_next_run(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(TsbenchError, match=r"cannot download a\.csv .*try again"):
        download(entry_with(server.file("breaks-always")), None, tmp_path)
    part = tmp_path / "S" / "a.csv.part"
    assert part.read_bytes() == CONTENT[: 5 * 65536]
    (path,) = download(entry_with(server.file("ok")), None, tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("ok", "bytes=327680-")


def test_when_the_server_knows_no_ranges_then_the_whole_file_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.csv.part").write_bytes(CONTENT[:1234])
    (path,) = download(entry_with(server.file("whole-only")), None, tmp_path)
    assert path.read_bytes() == CONTENT


def test_when_the_part_is_already_whole_then_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.csv.part").write_bytes(CONTENT)
    download(entry_with(server.file("ok")), None, tmp_path)
    assert server.requests == []


def test_when_the_part_is_longer_than_the_file_then_it_starts_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.csv.part").write_bytes(CONTENT + b"more")
    (path,) = download(entry_with(server.file("ok", size=None)), None, tmp_path)
    assert path.read_bytes() == CONTENT


def test_when_the_first_address_fails_then_the_next_is_tried(server: Server, tmp_path: Path) -> None:
    (path,) = download(entry_with(server.file("missing", "wrong", "ok")), None, tmp_path)
    assert path.read_bytes() == CONTENT
    assert [behaviour for behaviour, _ in server.requests] == ["missing", "wrong", "ok"]


def test_when_the_checksum_is_wrong_then_both_are_named_and_nothing_is_kept(
    server: Server, tmp_path: Path
) -> None:
    found = hashlib.sha256(b"x" * len(CONTENT)).hexdigest()
    with pytest.raises(TsbenchError, match=f"sha256 is {found}, expected {SHA256}.*place the file at"):
        download(entry_with(server.file("wrong")), None, tmp_path)
    assert left_behind(tmp_path) == []


def test_when_the_server_sends_too_much_then_it_is_cut_off(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TsbenchError, match=f"more than the expected {len(CONTENT)} bytes"):
        download(entry_with(server.file("endless")), None, tmp_path)
    monkeypatch.setattr(download_module, "MAX_BYTES", 5000)
    with pytest.raises(TsbenchError, match="more than the expected 5000 bytes"):
        download(entry_with(server.file("ok", size=None)), None, tmp_path)
    assert (tmp_path / "S" / "a.csv.part").stat().st_size == 0


def test_without_a_connection_the_remedy_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.file("ok")
    server.shutdown()
    server.server_close()
    with pytest.raises(
        TsbenchError, match=r"no connection.*--mirror DIR.*place the file at .*a\.csv"
    ) as info:
        download(entry_with(file), None, tmp_path)
    assert "\n" not in str(info.value)


def test_when_the_data_directory_cannot_be_written_then_it_says_so(server: Server, tmp_path: Path) -> None:
    (tmp_path / "S").write_text("a file, no directory")
    with pytest.raises(TsbenchError, match="set TSBENCH_HOME"):
        download(entry_with(server.file("ok")), None, tmp_path)


def test_two_threads_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    entry = entry_with(server.file("ok"))
    threads = [threading.Thread(target=download, args=(entry, None, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert (tmp_path / "S" / "a.csv").read_bytes() == CONTENT
