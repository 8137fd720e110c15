"""Commands in processes of their own, without each of them importing torch anew.

One process a test worker imports what every command of ``reflex`` and every script of the documentation
imports in the end, and then waits. For each command it forks: the child takes the caller's files, directory,
environment and arguments, and goes on as ``python -m MODULE`` would. Nothing of this project is imported
beforehand, so that what runs is what lies on the path then.

    python tests/support/warm.py SOCKET                       wait for commands
    python -S -E tests/support/warm.py SOCKET -m MODULE ...   have one run, and end as it ends

Beside the socket lies ``python``, a program that takes a command as an interpreter does and asks for it. To
what runs warm it is ``sys.executable``, so that what a command starts in its turn, such as the workers of an
inner pytest, is warm too.
"""

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import sys

# What a start may set that an import has read already; such a command starts cold.
READ_BY_IMPORTS = ("PYTHON", "OMP_", "MKL_", "ATEN_", "ONEDNN_", "OPENBLAS", "HF_", "TRANSFORMERS_", "TORCH",
                   "LD_", "XDG_", "HOME", "COVERAGE_")  # fmt: skip
PRELOADED = (
    "numpy", "torch", "torch.export", "torch.onnx", "torch._dynamo", "transformers", "onnx", "onnxruntime",
    "onnx_ir", "onnxscript", "safetensors.torch", "rich.console", "rich.progress", "click", "jinja2",
    "pytest", "execnet",
    "transformers.models.pi0.modeling_pi0", "torch.onnx._internal.exporter._core",
    "lerobot.policies.smolvla.modeling_smolvla", "lerobot.policies.pi0.modeling_pi0",
    "lerobot.policies.pi05.modeling_pi05", "lerobot.policies.groot.groot_n1_7",
)  # fmt: skip


COLD = b"cold"
STARTED = dict(os.environ)


def as_imported(env):
    """The part of an environment that an import may have read."""
    return {k: v for k, v in env.items() if k.startswith(READ_BY_IMPORTS) and k != "PYTHONPATH"}


def ask(path, arguments):
    """Have a command run in the caller's own place; its exit code."""
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(path)
        asked = {"cwd": os.getcwd(), "env": dict(os.environ), "argv": list(arguments)}
        body = json.dumps(asked).encode("utf-8", "surrogateescape")
        socket.send_fds(waiting, [len(body).to_bytes(4, "big")], [0, 1, 2])
        waiting.sendall(body)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda sent, _: waiting.sendall(bytes([sent])))
        said = waiting.recv(16) or b"70"
        if said == COLD:
            os.execv(sys.executable, [sys.executable, *arguments])
        return int(said)


def launcher(path):
    """The program that asks at a socket, as ``sys.executable`` names an interpreter."""
    return os.path.join(os.path.dirname(path), "python")


def command(arguments):
    """Of a command: ``-m``, ``-c`` or, for a script, nothing; and what comes after.

    None where there is an option of the interpreter that a process cannot take any more once it runs.
    """
    arguments = list(arguments)
    # Nothing is held back here but what fills a buffer, and execnet, which asks for this, flushes.
    if arguments[:1] == ["-u"]:
        del arguments[0]
    if not arguments or arguments[0] in ("", "-"):
        return None
    if arguments[0][:2] in ("-m", "-c"):
        kind, attached = arguments[0][:2], arguments[0][2:]
        rest = [attached] * bool(attached) + arguments[1:]
        return (kind, rest) if rest else None
    return None if arguments[0][0] == "-" else ("", arguments)


def can_be_warm(arguments, env):
    """Whether a command runs as it would by itself: what it reads at imports is what was read."""
    return command(arguments) is not None and as_imported(env) == as_imported(STARTED)


def serve(path):
    import gc
    import importlib

    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # one environment has what the other lacks
            continue
    import torch

    # The first trace of a process makes tables that all others only read.
    torch.onnx.export(torch.nn.Linear(1, 1).eval(), (torch.ones(1, 1),), dynamo=True, verbose=False)
    # transformers' client brings it; as pytest's plugin it wants to be imported by pytest.
    for name in [name for name in sys.modules if name.partition(".")[0] == "anyio"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    with open(launcher(path), "w") as program:
        asking = [sys.executable, "-S", "-E", os.path.abspath(__file__), path]
        program.write(f'#!/bin/sh\nexec {shlex.join(asking)} "$@"\n')
    os.chmod(launcher(path), 0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path + ".new")
        listening.listen()
        os.rename(path + ".new", path)
        parent, running = os.getppid(), []
        while os.getppid() == parent:
            waited = [listening, *(each for _, watched, caller in running for each in (watched, caller))]
            ready = select.select(waited, [], [], 1.0)[0]
            running = [one for one in running if not _has_ended(*one, ready)]
            if listening in ready:
                caller, _ = listening.accept()
                others = [listening, *(each for _, _, each in running)]
                if begun := _begin(caller, launcher(path), others):
                    running.append((*begun, caller))
                else:
                    caller.close()


def _has_ended(command, watched, caller, ready):
    """Whether a command is over, of which its caller is told; if not, it gets what the caller was sent."""
    if watched not in ready:
        if caller in ready:
            # Whoever asked and went away wants no answer any more.
            os.kill(command, (caller.recv(1) or b"\x09")[0])
        return False
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    os.close(watched)
    with contextlib.suppress(OSError), caller:
        caller.sendall(str(code if code >= 0 else 128 - code).encode())
    return True


def _begin(caller, executable, others):
    """The process of a command, and the file by which its end is seen; None where it has to start cold."""
    head, files, _, _ = socket.recv_fds(caller, 4, 3)
    size, body = int.from_bytes(head, "big"), b""
    while len(body) < size and (part := caller.recv(size - len(body))):
        body += part
    try:
        if not body or len(body) < size:
            return None
        asked = json.loads(body)
        if not can_be_warm(asked["argv"], asked["env"]):
            caller.sendall(COLD)
            return None
        command = os.fork()
        if command == 0:
            try:
                for each in (caller, *others):
                    each.close()
                _become(asked, files, executable)
            finally:
                os._exit(70)
        return command, os.pidfd_open(command)
    finally:
        for file in files:
            os.close(file)


def _become(asked, files, executable):
    """Run the command as a fresh interpreter would, and end."""
    import atexit
    import io
    import runpy
    import threading
    import traceback

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = io.BufferedWriter(io.FileIO(number, "wb", closefd=False))
        setattr(
            sys, name, io.TextIOWrapper(raw, "utf-8", errors, line_buffering=os.isatty(number) or number == 2)
        )
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), "utf-8")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.executable = executable
    kind, argv = command(asked["argv"])
    added = [p for p in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if p]
    code = 0
    try:
        if kind == "-m":
            sys.argv, sys.path[0:1] = argv, [asked["cwd"], *added]
            runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv, sys.path[0:1] = ["-c", *argv[1:]], ["", *added]
            exec(compile(argv[0], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
        else:
            sys.argv, sys.path[0:1] = argv, [os.path.dirname(os.path.abspath(argv[0])), *added]
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        code = 0 if code is None else code if isinstance(code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        try:
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            code = code or 120
        finally:
            os._exit(code & 0xFF)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
