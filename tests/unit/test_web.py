"""The page in the browser: who may see it, what is on it, and that looking changes nothing."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aioxide
import browser
import pytest

PROGRAM = """
import asyncio, re, signal, sys, threading, time
signal.signal(signal.SIGUSR1, lambda *_: None)
async def waits(lock):
    async with lock:
        secret = "the value of a variable"
        await asyncio.sleep(1000)
def blocks(seconds):
    time.sleep(seconds)
async def stalls():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    blocks(0.7)
    await asyncio.sleep(1000)
async def stalls_for_good():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    blocks(1000)
async def keeps_the_gil():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    re.match("(a+)+b", "a" * 60)
async def spins():
    while True:
        await asyncio.sleep(0.001)
async def parent():
    await asyncio.gather(child())
async def child():
    await asyncio.sleep(1000)
class Hostile(asyncio.Task):
    def get_name(self):
        raise RuntimeError("no name")
    __repr__ = get_name
async def main():
    lock = asyncio.Lock()
    tasks = [asyncio.create_task(waits(lock), name=f"worker {n}") for n in range(3)]
    tasks.append(asyncio.create_task(asyncio.sleep(1000), name="<img src=x onerror=alert(1)>\\x1b"))
    tasks.append(asyncio.create_task(parent(), name="parent"))
    tasks.append(Hostile(asyncio.sleep(1000), loop=asyncio.get_running_loop()))
    for name in sys.argv[1:]:
        tasks.append(asyncio.create_task(globals()[name](), name=name))
    await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.wait(tasks)
asyncio.run(main())
"""


pytestmark = [
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # is multi-threaded
    pytest.mark.usefixtures("directory"),
]


@pytest.fixture
def start(directory):
    processes = []

    def start(*arguments, option="--inspect=web"):
        process = subprocess.Popen(
            [sys.executable, "-m", "aioxide", option, "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        line = process.stderr.readline()
        process.url = re.fullmatch(
            r"aioxide: to look inside, open (http://127\.0\.0\.1:\d+/\?token=[\w-]{32})\n", line
        )[1]
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def go(process):
    """Let the program's task go on to what it is there for."""
    process.stdin.write("go\n")
    process.stdin.flush()


def fetch(url, path="/", method="GET", token=None, **headers):
    """The status, the headers and the content of an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
    if token is None:
        token = parse_qs(parts.query)["token"][0]
    connection.request(method, f"{path}?token={token}" if token else path, headers=headers)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def ask(url, what):
    status, _, content = fetch(url, f"/{what}")
    assert status == 200
    return json.loads(content)


def test_only_who_knows_the_token_sees_anything(start):
    url = start().url
    token = parse_qs(urlsplit(url).query)["token"][0]
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    for path in ("/", "/figures", "/tasks", "/stacks", "/favicon.ico"):
        for given in ("", wrong, token[:-1], token + "a", token.swapcase()):
            status, _, content = fetch(url, path, token=given)
            assert status == 403, (path, given)
            assert content.startswith("open the address")
            assert "worker" not in content
    assert fetch(url)[0] == 200
    assert fetch(url, "/figures")[0] == 200


def test_other_names_of_the_host_are_refused(start):
    url = start().url
    port = urlsplit(url).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port - 1}", f"[::1]:{port}", ""):
        assert fetch(url, Host=host)[0] in (400, 403), host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LocalHost:{port}"):
        assert fetch(url, Host=host)[0] == 200, host


def test_only_get(start):
    url = start().url
    for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get"):
        assert fetch(url, "/figures", method)[0] == 405, method
    assert fetch(url, "/etc/passwd")[0] == 404
    assert fetch(url, "/../page.html")[0] == 404


def test_nonsense_is_answered_or_left(start):
    url = start().url
    port = urlsplit(url).port
    query, host = urlsplit(url).query, f"Host: 127.0.0.1:{port}"

    def send(text):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(text)
            try:
                return b"".join(iter(lambda: connection.recv(1 << 16), b""))
            except ConnectionResetError:
                return b""

    for head in (
        "GET",
        f"GET /?{query} HTTP/1.1",  # no host
        f"GET /?{query} HTTP/1.1\r\n{host}\r\n{host}",  # two of them
        f"GET http://127.0.0.1:{port}/?{query} HTTP/1.1\r\n{host}",
        f"GET /?{query} HTTP/2\r\n{host}",
        f"GET /?{query} and more HTTP/1.1\r\n{host}",
        "\x16\x03\x01",
    ):
        assert send(head.encode() + b"\r\n\r\n").startswith(b"HTTP/1.1 400 "), head
    assert send(b"\xff\xfe\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert send(b"x" * 40_000) == b""
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]  # as browsers do in advance
    assert fetch(url)[0] == 200
    for connection in idle:
        connection.close()


def test_it_listens_on_the_loopback_interface_alone(start):
    process = start()
    port = urlsplit(process.url).port
    with open(f"/proc/{process.pid}/net/tcp") as file:
        rows = [line.split() for line in file]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]


def test_what_the_answers_say_of_themselves(start):
    _, headers, content = fetch(start().url)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", content)
    assert set(re.findall(r"https?://[\w./]+", content)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


@pytest.mark.parametrize("thread", ["aioxide-inspect", "aioxide-page"])
def test_signals_do_not_end_an_answer(start, directory, thread):
    """A native thread that waits for a question gets no signal; to be stopped meanwhile is nothing to whoever asks."""
    process = start()
    parts = urlsplit(process.url)
    if thread == "aioxide-page":
        connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        question = f"GET /figures?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(str(directory / f"{process.pid}.sock"))
        question = "tasks\n"
    with connection:
        blocked = []
        for _ in range(20):
            time.sleep(0.02)
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                if (task / "comm").read_text().strip() == thread:
                    blocked.append(int(re.search(r"SigBlk:\s(\w+)", (task / "status").read_text())[1], 16))
            for number in signal.SIGUSR1, signal.SIGSTOP, signal.SIGCONT:
                process.send_signal(number)
        assert blocked
        for mask in blocked:
            assert mask >> signal.SIGUSR1 - 1 & 1 and not mask >> signal.SIGSEGV - 1 & 1
        connection.sendall(question.encode())
        assert b'"metrics"' in b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_the_page_is_in_the_package():
    page = Path(aioxide.__file__).with_name("page.html")
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_figures(start):
    url = start("spins").url
    first = ask(url, "figures")
    time.sleep(0.5)
    second = ask(url, "figures")
    (before,), (after,) = first["metrics"], second["metrics"]
    assert after["loop"] == before["loop"]
    assert after["figures"]["callbacks"] > before["figures"]["callbacks"]
    assert after["figures"]["timers"] >= 3
    for name in ("lag", "iteration", "callback"):
        counts, earlier = dict(after[name]), dict(before[name])
        assert sum(counts.values()) == after["figures"][name]["count"]
        assert all(counts[limit] >= count for limit, count in earlier.items())
        assert max(counts) >= after["figures"][name]["max"] * 1e9 * 0.999
    assert "loops" not in second


def test_no_values_of_variables(start):
    process = start()
    for what in ("figures", "tasks", "stacks"):
        assert "the value of" not in fetch(process.url, f"/{what}")[2]


def test_of_very_many_tasks_some_are_shown(directory):
    async def main(url):
        wait = asyncio.Event().wait
        tasks = [asyncio.create_task(wait()) for _ in range(1500)]
        await asyncio.sleep(0)
        first, second = [await asyncio.to_thread(ask, url, "tasks") for _ in range(2)]
        for task in tasks:
            task.cancel()
        return first["loops"][0], second["loops"][0]

    with aioxide.inspect.serve(web=True) as server:
        first, second = aioxide.run(main(server.url))
    assert len(first["tasks"]) == 1000
    assert first["left"] == 501
    in_both = {task["id"] for task in first["tasks"]} & {task["id"] for task in second["tasks"]}
    assert len(in_both) >= 999  # all but the one that ran, perhaps


def test_a_stall_is_told_while_it_lasts(start):
    process = start("stalls_for_good")
    go(process)
    for _ in range(200):
        time.sleep(0.1)
        found = ask(process.url, "figures")
        if found["stalls"]:
            break
    (stall,) = found["stalls"]
    assert not stall["over"]
    assert stall["looks"][0]["task"] == "stalls_for_good"
    assert [link["function"] for link in stall["looks"][0]["stack"]] == ["stalls_for_good", "blocks"]
    assert 0 <= found["time"] - stall["since"] - stall["seconds"] < 10
    assert any(task["state"] == "running" for task in ask(process.url, "tasks")["loops"][0]["tasks"])


def test_it_answers_while_native_code_keeps_the_lock(start):
    process = start("keeps_the_gil")
    go(process)
    time.sleep(0.5)
    for what in ("figures", "tasks", "stacks", "figures"):
        found = ask(process.url, what)
        assert found["unavailable"] == "native code keeps the interpreter's lock"
        assert [pulse["busy"] for pulse in found["pulses"]] == [True]
    assert fetch(process.url)[0] == 200


def test_its_watchdog_logs_nothing(start):
    process = start("stalls")
    go(process)
    while not any(stall["over"] for stall in ask(process.url, "figures")["stalls"]):
        time.sleep(0.1)
    process.kill()
    assert process.stderr.read() == ""


def test_options(directory):
    def run(*words):
        command = [sys.executable, "-m", "aioxide", *words, "-c", "print('ran')"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    for word in ("--inspect=", "--inspect=wep", "--inspect=web:x", "--inspect=web:-1", "--inspect=web:70000"):
        done = run(word)
        assert (done.returncode, done.stdout) == (2, ""), word
        assert f"{word}: neither web nor web:PORT" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run(f"--inspect=web:{port}")
        assert done.returncode == 2
        assert done.stderr.startswith("aioxide: can't listen: ")
        assert done.stderr.count("\n") == 1
    done = run(f"--inspect=web:{port}")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.startswith(f"aioxide: to look inside, open http://127.0.0.1:{port}/?token=")


def test_serve(directory):
    with aioxide.inspect.serve() as server:
        assert server.url is None
        with aioxide.inspect.serve(web=True) as same:
            assert same is server
            url = server.url
            assert aioxide.inspect.serve(web=True).url == url
            assert ask(url, "figures")["pid"] == os.getpid()
            assert aioxide._watchdog._running is not None
        assert server.url is None
        assert aioxide._watchdog._running is None
    with pytest.raises(ConnectionRefusedError):
        fetch(url)
    with aioxide.inspect.serve(web=True, port=urlsplit(url).port) as again:  # the port is free at once
        assert urlsplit(again.url).port == urlsplit(url).port
        assert again.url != url
        assert fetch(again.url, token=parse_qs(urlsplit(url).query)["token"][0])[0] == 403


def test_a_watchdog_that_is_there_is_left_alone(directory):
    with aioxide.watchdog(5) as dog:
        with aioxide.inspect.serve(web=True):
            assert aioxide._watchdog._running is dog
        assert aioxide._watchdog._running is dog


def test_no_thread_outlives_it(directory):
    def names():
        found = set()
        for number in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{number}/comm") as file:
                found.add(file.read().strip())
        return {name for name in found if name in ("aioxide-inspect", "aioxide-web", "aioxide-page", "aioxide-look")}

    for _ in range(5):
        with aioxide.inspect.serve(web=True):
            end = time.monotonic() + 30
            while not {"aioxide-inspect", "aioxide-web"} <= names():
                assert time.monotonic() < end
        end = time.monotonic() + 30
        while names():
            assert time.monotonic() < end, names()
            time.sleep(0.01)


def test_loops_come_and_go(directory):
    """A loop that has ended is not kept, nor is there a list of all there have been."""

    async def nothing():
        pass

    with aioxide.inspect.serve(web=True) as server:
        for _ in range(100):
            aioxide.run(nothing())
        assert ask(server.url, "figures")["metrics"] == []
        assert ask(server.url, "tasks")["loops"] == []


def test_a_fork_leaves_the_page_to_its_parent(directory):
    with aioxide.inspect.serve(web=True) as server:
        port = urlsplit(server.url).port
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            # Open until the parent has closed its own: then nobody else keeps the port.
            os.close(writing)
            own = server.url is None and aioxide.inspect._server is None
            os.read(reading, 1)
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                own = False
            except ConnectionRefusedError:
                pass
            with aioxide.inspect.serve(web=True) as another:
                own = own and ask(another.url, "figures")["pid"] == os.getpid()
            os._exit(0 if own else 1)
        os.close(reading)
        assert ask(server.url, "figures")["pid"] == os.getpid()
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_looks_change_nothing(start):
    process = start("spins")
    count = int(os.environ.get("LOOKS", "300"))

    def resources():
        with open(f"/proc/{process.pid}/statm") as file:
            memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return memory, len(os.listdir(f"/proc/{process.pid}/fd"))

    for _ in range(100):
        ask(process.url, "tasks")
        ask(process.url, "figures")
    memory, descriptors = resources()
    for _ in range(count // 2):
        ask(process.url, "tasks")
        ask(process.url, "figures")
    after, still = resources()
    assert after - memory < 3 << 20
    assert still <= descriptors + 2
    assert process.poll() is None


@browser.needed
class TestInABrowser:
    def test_what_is_on_the_page(self, start):
        process = start("spins")
        with browser.Browser() as page:
            page.open(process.url)
            page.until("document.querySelector('#status').textContent === 'running'")
            page.until("document.querySelectorAll('#tasks summary').length >= 7")
            page.until("document.querySelectorAll('#plots path').length === 2")
            text = page.text()
            assert f"process {process.pid}" in text
            rows = page.run("[...document.querySelectorAll('#tasks summary')].map((row) => row.innerText)")
            (worker,) = [row for row in rows if row.startswith("worker 1")]
            assert re.search(r"waits <string>:5 · waits for lock 0x\w+, held by worker 0", worker), worker
            assert any(row.startswith("<img src=x onerror=alert(1)>?") for row in rows)  # text, and no more than that
            assert page.run("document.querySelectorAll('img').length") == 0
            assert any(row.startswith("?\n") for row in rows)  # a name that raises
            # What a task waits for is within it.
            child = "[...document.querySelectorAll('#tasks summary')].find((row) => row.innerText.includes('child <'))"
            assert page.run(f"{child}.closest('.within').previousElementSibling.innerText").startswith("parent")
            assert "longest iteration" in text and "callbacks/s" in text
            rates = page.run("[...document.querySelectorAll('#figures b')].map((figure) => figure.innerText)")
            assert "NaN" not in " ".join(rates) and "undefined" not in text
            assert float(rates[0].split()[0]) > 0
            assert page.complaints() == []
            assert {urlsplit(url).netloc for url in page.requests()} <= {urlsplit(process.url).netloc, ""}

    def test_what_a_reader_can_do(self, start):
        process = start("spins")
        rows = "[...document.querySelectorAll('#tasks summary')].map((row) => row.innerText)"
        with browser.Browser() as page:
            page.open(process.url)
            page.until(f"{rows}.length >= 6")
            page.run("document.querySelector('#filter').value = 'WORKER'")
            page.run("document.querySelector('#filter').dispatchEvent(new Event('input'))")
            assert page.run(f"{rows}.length") == 4  # and Task-1, which waits for them
            page.run("document.querySelector('#filter').value = ''")
            page.run("document.querySelector('#order').value = 'steps'")
            page.run("document.querySelector('#order').dispatchEvent(new Event('change'))")
            page.until(f"{rows}[0].startsWith('spins')")
            page.run("document.querySelector('#tasks summary').click()")
            page.until("document.querySelector('#tasks details[open]')?.innerText.includes('spins  <string>:22')")
            time.sleep(2.5)  # it stays open when the list is drawn anew
            assert page.run("document.querySelector('#tasks details[open] .here').innerText") == "spins  <string>:22"
            page.run("document.querySelector('#look').click()")
            page.until("document.querySelector('#threads').innerText.includes('MainThread')")
            page.run("document.querySelector('#pause').click()")
            time.sleep(1.5)
            before = len(page.requests())
            time.sleep(1.5)
            page.run("0")
            assert len(page.requests()) == before
            assert page.complaints() == []

    def test_a_stall_as_it_happens(self, start):
        process = start("stalls_for_good")
        with browser.Browser(dark=True) as page:
            page.open(process.url)
            page.until("document.querySelector('#status').textContent === 'running'")
            assert "None so far" in page.run("document.querySelector('#stalls').innerText")
            go(process)
            page.until("document.querySelector('#status').textContent.startsWith('stalled for ')")
            shown = page.until("document.querySelector('#stalls article.lasting')?.innerText")
            assert "in task stalls_for_good" in shown
            assert "blocks  <string>:9" in shown
            assert page.run("document.querySelector('#stalls .here').innerText") == "blocks  <string>:9"
            page.until("document.querySelectorAll('#plots rect.stall').length === 1")
            assert page.complaints() == []

    def test_the_end_of_a_stall(self, start):
        process = start("stalls")
        with browser.Browser() as page:
            page.open(process.url)
            page.until("document.querySelector('#status').textContent === 'running'")
            go(process)
            shown = page.until("document.querySelector('#stalls article:not(.lasting)')?.innerText")
            assert re.match(r"\d+ ms\s+in task stalls\s", shown) or re.match(r"\d\.\d\d s\s", shown), shown
            page.until("document.querySelector('#status').textContent === 'running'")

    def test_native_code_that_keeps_the_lock(self, start):
        process = start("keeps_the_gil")
        with browser.Browser() as page:
            page.open(process.url)
            page.until("document.querySelector('#status').textContent === 'running'")
            go(process)
            page.until("document.querySelector('#status').textContent.startsWith('native code keeps the interpreter')")

    def test_the_end_of_the_program(self, start):
        process = start()
        with browser.Browser() as page:
            page.open(process.url)
            page.until("document.querySelector('#status').textContent === 'running'")
            process.kill()
            page.until("document.querySelector('#status').textContent.startsWith('no answer')")
            assert "worker 1" in page.text()  # what was seen last stays

    def test_a_wrong_token(self, start):
        process = start()
        with browser.Browser() as page:
            page.open(process.url[:-4] + "abcd")
            assert "token is missing or wrong" in page.text()
