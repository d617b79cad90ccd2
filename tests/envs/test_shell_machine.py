"""The machine that shell tasks play in: its files, its shell, its ends. The same in each kind of sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cmat_graph.envs.shell.keeper import Limits
from cmat_graph.envs.shell.machine import Machine
from cmat_graph.envs.shell.records import Record
from cmat_graph.envs.shell.starting import choose
from cmat_graph.errors import ConfigurationError, TaskFileError

pytestmark = pytest.mark.clock


def record(files=(), *, users=(), groups=(), **session):
    state = {"files": list(files), "users": list(users), "groups": list(groups)}
    fields = {"id": "x", "description": "d", "check": "match", "answer": "a", "state": state, "session": session}
    return Record.model_validate(fields)


@pytest.fixture(params=["bubblewrap", pytest.param("unshare", marks=pytest.mark.slow)])
def kind(request):
    try:
        return choose(request.param)
    except ConfigurationError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def start(kind):
    machines = []

    def make(*args, limits=None, **session):
        machines.append(Machine(record(*args, **session), kind=kind, limits=limits or Limits(seconds=5)))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


def said(machine, script):
    return machine.run(script).output.decode()


def test_files_come_as_the_record_says(start):
    now = time.time()
    machine = start(
        [
            {"path": "/root/d", "type": "dir", "mode": "0700", "mtime": 1_000_000},
            {"path": "/root/d/a b'c.txt", "type": "file", "mode": "4755", "text": "grüße\n", "age_s": 86_400 * 9},
            {"path": "/root/raw", "type": "file", "mode": "0000", "b64": "AP8="},
            {"path": "/root/full", "type": "file", "mode": "0644", "fill": {"byte": 65, "size": 5000}},
            {"path": "/root/hole", "type": "file", "fill": {"byte": 0, "size": 10**9}, "sparse": True},
            {"path": "/root/one", "type": "file", "text": "same", "hardlink_group": 1},
            {"path": "/root/two", "type": "file", "text": "same", "hardlink_group": 1},
            {"path": "/root/link", "type": "link", "target": "../etc/passwd"},
            {"path": "/deep/er/file", "type": "file", "text": "x"},
            {"path": "/usr/stock.log", "type": "file", "text": "1\n"},
        ]
    )
    out = said(
        machine, "cd /root; stat -c '%n %a %s %Y %h' d d/* raw full hole one link; du hole; cat raw | od -An -tx1"
    )
    lines = {line.rsplit(" ", 4)[0]: line.rsplit(" ", 4)[1:] for line in out.splitlines() if line.count(" ") >= 4}
    assert lines["d"][0] == "700"
    assert lines["d"][2] == "1000000"
    mode, size, changed, _ = lines["d/a b'c.txt"]
    assert (mode, size) == ("4755", "8")
    assert abs(now - 86_400 * 9 - int(changed)) < 60
    assert lines["full"][1] == "5000"
    assert lines["hole"][1] == "1000000000"
    assert lines["one"][3] == "2"
    assert "0\thole" in out
    assert "00 ff" in out  # root reads what nobody may
    assert (
        said(machine, "readlink link; cat /usr/stock.log /deep/er/file; ls /root | wc -l") == "../etc/passwd\n1\nx7\n"
    )


def test_users_and_groups_are_added_and_the_session_is_its_user(start):
    machine = start(
        [
            {"path": "/home/jack", "type": "dir", "mode": "0755", "uid": 1000, "gid": 1000},
            {"path": "/home/jack/test", "type": "file", "mode": "0000", "uid": 1000, "text": "echo love\n"},
        ],
        users=["jack:x:1000:1000::/home/jack:/bin/bash"],
        groups=["jack:x:1000:", "sudo:x:27:jack"],
        user="jack",
        home="/home/jack",
        cwd="/home/jack",
    )
    assert said(machine, "id -un; id -gn; pwd; echo ~; stat -c %U test; groups jack") == (
        "jack\njack\n/home/jack\n/home/jack\njack\njack : jack sudo\n"
    )
    assert "Permission denied" in said(machine, "cat test")
    assert said(machine, "chmod 777 test && ~/test") == "love\n"
    assert (
        said(machine, "grep -c ^sudo: /etc/group; grep Cap /proc/self/status | grep -vc 0000000000000000") == "1\n0\n"
    )


def test_the_shell_stays_the_same_from_command_to_command(start):
    machine = start(vars={"COLOUR": "it's blue"}, cwd="/srv/new/place")
    assert said(machine, "pwd; echo $COLOUR; env | grep -c COLOUR") == "/srv/new/place\nit's blue\n0\n"
    said(machine, "cd /tmp; x=5; f() { echo f $x; }; alias hi='echo hello'; export Y=7; set -- a b")
    assert said(machine, "f; hi; pwd; echo $Y $1; bash -c 'echo $Y$x'") == "f 5\nhello\n/tmp\n7 a\n7\n"
    assert said(machine, "cat; read z; echo read $?") == "read 1\n"  # nobody types


@pytest.mark.parametrize(
    "script", ["if", "echo 'open", "break 9; continue", "set -u; echo $none", "}", "eval 'exit'", "\0"]
)
def test_a_broken_script_says_so_and_the_next_one_runs(start, script):
    machine = start()
    machine.run(script)
    assert said(machine, "echo fine") == "fine\n"


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$", "exec true", "kill -9 -1; kill -9 $$", "set -e; false"])
def test_a_shell_that_is_ended_is_followed_by_another_in_the_same_folder(start, script):
    machine = start()
    said(machine, "cd /var/log; touch here")
    assert machine.run(script).end == "ended"
    assert said(machine, "pwd; ls") == "/var/log\nhere\n"


def test_login_files_that_end_every_shell_do_not_end_the_machine(start):
    machine = start([{"path": "/root/.profile", "type": "file", "text": "exit 0\n"}])
    assert said(machine, "echo fine") == "fine\n"


def test_a_command_without_end_is_stopped_and_what_it_printed_is_kept(start):
    machine = start(limits=Limits(seconds=1))
    began = time.monotonic()
    ran = machine.run("cd /tmp; echo begun; sleep 100")
    assert (ran.end, ran.output) == ("seconds", b"begun\n")
    assert time.monotonic() - began < 3
    assert said(machine, "ps -e -o comm= | grep -c sleep") == "0\n"


def test_output_without_end_is_stopped_and_never_kept(start):
    ran = start().run("yes")
    assert (ran.end, ran.more, len(ran.output)) == ("output", True, 16_384)


def test_a_background_writer_writes_and_its_command_line_does_not_tell(start):
    machine = start(background_writer={"path": "/root/log", "append": "succeed", "every_s": 0.2})
    first = int(said(machine, "sleep 0.3; stat -c %s /root/log"))
    machine.run("exit")
    assert int(said(machine, "sleep 0.5; stat -c %s /root/log")) > first
    assert "/root/log" not in said(machine, "ps axww; cat /proc/*/environ | tr '\\0' ' '")


def test_a_writer_goes_on_after_a_command_had_to_be_stopped(start):
    machine = start(background_writer={"path": "/root/log", "append": "x", "every_s": 0.1}, limits=Limits(seconds=1))
    machine.run("sleep 9")
    first = int(said(machine, "stat -c %s /root/log"))
    assert int(said(machine, "sleep 0.25; stat -c %s /root/log")) > first


def test_files_that_have_no_place_are_the_tasks_fault(start):
    for path in ("/usr/bin/ls", "/proc/version", "/dev/null/x", "/etc/ld.so.preload"):
        with pytest.raises(TaskFileError, match="no place in the sandbox"):
            start([{"path": path, "type": "file", "text": "x"}])


def test_what_was_unpacked_is_not_larger_than_the_disk(start):
    with pytest.raises(TaskFileError, match="no place in the sandbox"):
        start([{"path": "/big", "type": "file", "fill": {"byte": 1, "size": 20 * 2**20}}], limits=Limits(disk_mb=8))


def test_a_closed_machine_does_nothing_more(start):
    machine = start()
    machine.close()
    machine.close()
    assert machine.run("echo hi").end == "broken"
    assert machine.check(["/usr/bin/true"]) is None


def test_sixteen_machines_at_once_do_not_mix(start):
    outputs = {}

    def play(number):
        machine = start()
        said(machine, f"echo {number} > /root/n; x={number}")
        outputs[number] = said(machine, "sleep 0.1; echo $x; cat /root/n; ls /root")

    threads = [threading.Thread(target=play, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n{number}\nn\n" for number in range(16)}


def test_the_exit_code_of_a_check_is_never_lost(start):
    machine = start()
    codes = [machine.check(["/usr/bin/bash", "-c", f"exit {number}"]) for number in range(1, 60)]
    assert codes == [(number, b"") for number in range(1, 60)]


def test_a_machine_outlives_the_thread_that_opened_it(start):
    made = []
    thread = threading.Thread(target=lambda: made.append(start()))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert said(made[0], "echo alive") == "alive\n"


AS_SOMEBODY = """
import os, sys
import cmat_graph.envs.shell.starting as starting, cmat_graph.envs.shell.machine, encodings.idna
from cmat_graph.envs.shell.keeper import Limits
os.setgroups([]); os.setresgid(4321, 4321, 4321); os.setresuid(4321, 4321, 4321)
kind = starting.choose(sys.argv[1])
machine = cmat_graph.envs.shell.machine.Machine(starting._NOTHING, kind=kind, limits=Limits(seconds=5, processes=20))
print(machine.run("id -u; touch /root/x && ls /root; for i in $(seq 40); do sleep 9 & done; echo done").output.decode())
print(machine.check(["/usr/bin/stat", "-c", "%a", "/root"]))
machine.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; the other tests ran as somebody")
def test_somebody_without_rights_gets_the_same_machine(kind):
    done = subprocess.run([sys.executable, "-c", AS_SOMEBODY, kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0\nx\n")
    assert "(0, b'700\\n')" in done.stdout


def test_the_fallback_is_as_much_of_a_machine():
    try:
        machine = Machine(record(users=["eve:x:2000:2000::/e:/bin/sh"], user="eve", home="/e", cwd="/e"),
                          kind=choose("unshare"), limits=Limits(seconds=1))  # fmt: skip
    except ConfigurationError as exc:
        pytest.skip(str(exc))
    assert said(machine, "id -un; ls -A; ls /home /root; x=1").startswith("eve\n/home:\n")
    assert machine.run("sleep 9").end == "seconds"
    assert said(machine, "pwd; cat /proc/1/environ").startswith("/e\n")
    assert machine.check(["/usr/bin/stat", "-c", "%a", "/tmp"]) == (0, b"1777\n")
    machine.close()


def test_without_a_wall_a_task_plays_here_and_leaves_nothing(tmp_path):
    home = tmp_path / "home"
    files = [{"path": f"{home}/deep/a.txt", "type": "file", "text": "x\n"}]
    machine = Machine(record(files, home=str(home), cwd=str(home)), kind="none", limits=Limits(seconds=1))
    assert said(machine, "pwd; cat deep/a.txt; cd deep; touch b; echo $HOME") == f"{home}\nx\n{home}\n"
    assert machine.run("sleep 50").end == "seconds"
    assert said(machine, "pwd") == f"{home}/deep\n"
    machine.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_wall_nothing_that_is_there_is_replaced(tmp_path):
    mine = Path(tmp_path, "mine.txt")
    mine.write_text("mine")
    with pytest.raises(TaskFileError, match="is there already"):
        Machine(record([{"path": str(mine), "type": "file", "text": "x"}]), kind="none", limits=Limits())
    with pytest.raises(TaskFileError, match="users of its own"):
        Machine(record(users=["a:x:1:1::/:/bin/sh"]), kind="none", limits=Limits())
    assert mine.read_text() == "mine"
