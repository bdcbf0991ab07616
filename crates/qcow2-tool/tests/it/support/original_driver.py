"""Answers for QEMU's own qcow2.py in one long-lived process: one JSON line per request."""

import contextlib
import io
import json
import signal
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])

import qcow2  # noqa: E402


class TooLong(Exception):
    pass


def too_long(*_):
    raise TooLong()


def run(argv, stdin):
    argv = list(argv)
    qcow2.is_json = '-j' in argv
    if qcow2.is_json:
        argv.remove('-j')
    out = io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(bytes.fromhex(stdin)), encoding='utf-8')
    status = 0
    signal.alarm(20)
    try:
        with contextlib.redirect_stdout(out):
            qcow2.main(argv[0], argv[1], argv[2:])
    except SystemExit as e:
        status = e.code
    except BaseException as e:
        return {'failed': repr(e)[:300]}
    finally:
        signal.alarm(0)
    return {'stdout': out.getvalue(), 'status': status}


def number(text):
    try:
        return str(int(text, 0))
    except ValueError:
        return None


signal.signal(signal.SIGALRM, too_long)
for line in sys.stdin.buffer:
    request = json.loads(line)
    if 'numbers' in request:
        answer = [number(text) for text in request['numbers']]
    else:
        answer = [run(argv, request.get('stdin', '')) for argv in request['run']]
    sys.stdout.write(json.dumps(answer) + '\n')
    sys.stdout.flush()
