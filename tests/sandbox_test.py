"""The sandbox: what hostile code can reach from inside, and that it ends."""

import ctypes
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from pkpo_jax.tasks.code import verifier as unit_tests
from pkpo_jax.workers import remote_calls, sandbox

EPERM, ENOSYS = 1, 38
KILL, ALLOW = 0x80000000, 0x7FFF0000
MACHINES = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}
FILE = Path(remote_calls.__file__)


@pytest.fixture(scope='module')
def command():
  """The command of a sandbox that works."""
  try:
    return unit_tests.working_command((FILE, '60', '512'))
  except RuntimeError as error:
    pytest.skip(str(error))


@pytest.fixture
def inside(command):
  """Runs a source in a sandbox and calls its function."""
  guests = []

  def run(source, *args, name='f', deadline_s=30.0):
    guests.append(sandbox.start(command, is_sandboxed=True))
    program = remote_calls.RemoteProgram(guests[-1].requests, guests[-1].replies)
    assert program.load(textwrap.dedent(source), deadline_s)
    return program.call(name, args, {})

  yield run
  for guest in guests:
    guest.kill()


# The filter, run by an interpreter of classic BPF.


def action(machine, architecture, number):
  data = struct.pack('=II', number, architecture)
  instructions = [*struct.iter_unpack('=HBBI', sandbox.syscall_filter(machine))]
  accumulator, position = None, 0
  while True:
    code, if_true, if_false, value = instructions[position]
    position += 1
    if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
      (accumulator,) = struct.unpack_from('=I', data, value)
    elif code in (0x15, 0x35):  # BPF_JMP | BPF_JEQ, BPF_JGE | BPF_K
      is_true = accumulator == value if code == 0x15 else accumulator >= value
      position += if_true if is_true else if_false
    else:
      assert code == 0x06  # BPF_RET | BPF_K
      return value


@pytest.mark.parametrize(
  'machine, number, result',
  [
    ('x86_64', 0, ALLOW),  # read
    ('x86_64', 59, ALLOW),  # execve: bubblewrap still has to start Python
    ('x86_64', 56, 0x50000 | EPERM),  # clone
    ('x86_64', 57, 0x50000 | EPERM),  # fork
    ('x86_64', 41, 0x50000 | EPERM),  # socket
    ('x86_64', 435, 0x50000 | ENOSYS),  # clone3
    ('x86_64', 425, 0x50000 | ENOSYS),  # io_uring_setup
    ('x86_64', 0x40000000 | 56, 0x50000 | ENOSYS),  # clone of the x32 ABI
    ('aarch64', 63, ALLOW),  # read
    ('aarch64', 221, ALLOW),  # execve
    ('aarch64', 220, 0x50000 | EPERM),  # clone
    ('aarch64', 198, 0x50000 | EPERM),  # socket
    ('aarch64', 435, 0x50000 | ENOSYS),  # clone3
    ('aarch64', 57, ALLOW),  # close
  ],
)
def test_filter(machine, number, result):
  assert action(machine, MACHINES[machine], number) == result


def test_filter_kills_what_calls_the_kernel_in_another_way():
  assert action('x86_64', 0x40000003, 2) == KILL  # fork of i386
  assert action('aarch64', 0x40000028, 2) == KILL  # fork of 32-bit ARM


def test_filter_of_an_unknown_machine():
  with pytest.raises(RuntimeError, match="'riscv64' are not known"):
    sandbox.syscall_filter('riscv64')


@pytest.mark.parametrize(
  'machine, header',
  [
    ('x86_64', '/usr/include/x86_64-linux-gnu/asm/unistd_64.h'),
    ('aarch64', '/usr/include/asm-generic/unistd.h'),
  ],
)
def test_numbers_are_those_of_the_kernel(machine, header):
  if not Path(header).exists():
    pytest.skip(f'there is no {header}')
  found = re.findall(r'#define __NR(?:3264)?_(\w+)\s+(\d+)\b', Path(header).read_text())
  numbers = {name: int(number) for name, number in found}
  column = list(MACHINES).index(machine)
  for name, row in sandbox._REFUSED.items():
    assert row[column] == numbers.get(name), name


# From inside.


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='numbers of x86_64')
def test_calls_are_refused(inside):
  source = """
    import ctypes
    def f(numbers):
      libc = ctypes.CDLL(None, use_errno=True)
      call = lambda number: libc.syscall(number, 0, 0, 0, 0, 0, 0)
      return [(name, call(number), ctypes.get_errno()) for name, number in numbers]
  """
  numbers = [(name, row[0]) for name, row in sandbox._REFUSED.items()]
  assert inside(source, numbers) == [(name, -1, EPERM) for name, _ in numbers]


def test_new_calls_are_refused(inside):
  source = """
    import ctypes
    def f():
      libc = ctypes.CDLL(None, use_errno=True)
      return [(libc.syscall(n, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) for n in range(424, 470)]
  """
  assert set(inside(source)) == {(-1, ENOSYS)}
  # It is the filter's answer: this kernel knows pidfd_open, and says that 0 is no process.
  libc = ctypes.CDLL(None, use_errno=True)
  assert (libc.syscall(434, 0, 0), ctypes.get_errno()) == (-1, 22)


@pytest.mark.parametrize(
  'source',
  [
    'import os\ndef f(): return os.fork()',
    'import os\ndef f(): return os.posix_spawn("/usr/lib/true", ["true"], {})',
    'import subprocess, sys\ndef f(): return subprocess.run([sys.executable, "-c", ""])',
    'import multiprocessing\ndef f(): multiprocessing.Process(target=print).start()',
    'import threading\ndef f(): threading.Thread(target=print).start()',
    'import _thread\ndef f(): _thread.start_new_thread(print, ())',
  ],
)
def test_no_other_process_or_thread(inside, source):
  with pytest.raises((OSError, RuntimeError)):
    inside(source)


def test_namespaces_are_its_own(command):
  guest = sandbox.start(command, is_sandboxed=True)
  remote_calls.RemoteProgram(guest.requests, guest.replies)
  for name in ('user', 'pid', 'net', 'ipc', 'uts', 'cgroup', 'mnt'):
    namespaces = [os.readlink(f'/proc/{pid}/ns/{name}') for pid in (guest._pid, os.getpid())]
    assert len(set(namespaces)) == 2, name
  guest.kill()


def test_it_sees_no_process_but_its_own(inside):
  source = """
    import os
    def f():
      alive = []
      for pid in range(1, 1000):
        try:
          os.kill(pid, 0)
          alive.append(pid)
        except ProcessLookupError:
          pass
      return alive, os.getpid(), os.getppid()
  """
  assert inside(source) == ([1, 2], 2, 1)


def test_python_has_the_standard_library_alone(inside):
  source = """
    import sys
    def f():
      return sys.path, sys.flags.no_site, sys.flags.dont_write_bytecode
  """
  path, *flags = inside(source)
  library = Path(sysconfig.get_path('stdlib')).resolve()
  assert {Path(x) for x in path if Path(x).is_dir()} == {library, library / 'lib-dynload'}
  assert flags == [1, 1]


def test_network_is_another_one_even_without_the_filter(command, tmp_path):
  script = tmp_path / 'connect.py'
  with socket.create_server(('127.0.0.1', 0)) as server:
    script.write_text(f"""
import socket
try:
  socket.create_connection({server.getsockname()!r}, 5)
except OSError as error:
  print(type(error).__name__)
""")
    with_script = sandbox.sandbox_command(command[0], script)
    run = subprocess.run(with_script, capture_output=True, text=True, check=True)
    assert run.stdout == 'ConnectionRefusedError\n'
    bare = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert bare.stdout == ''


def test_file_system_holds_python_and_libraries(inside):
  source = """
    import os
    def f(path):
      return sorted(os.listdir(path))
  """
  top = {Path(sys.base_prefix).resolve().parts[1], 'usr', 'lib', 'lib64', 'program.py'}
  assert set(inside(source, '/')) <= top
  assert set(inside(source, '/usr')) <= {'lib', 'lib64', 'bin', 'local'}
  assert len(inside(source, sysconfig.get_path('stdlib'))) > 100
  # What stands between the root and Python holds nothing but the way.
  folder = Path(sys.base_prefix).resolve()
  while folder.parent != Path('/'):
    if folder.parent != Path('/usr'):
      assert inside(source, str(folder.parent)) == [folder.name]
    folder = folder.parent


def test_installed_packages_are_out_of_sight(inside):
  source = """
    import glob, os
    def f(patterns):
      return [(path, os.listdir(path)) for p in patterns for path in glob.glob(p)]
  """
  library = Path(sysconfig.get_path('stdlib')).resolve().parent
  patterns = [f'{x}/python*/*-packages' for x in (library, '/usr/lib', '/usr/local/lib')]
  assert all(not names for _, names in inside(source, patterns))


def test_packages_on_the_path_are_out_of_sight(command, monkeypatch):
  """As if they were installed in a folder of their own, next to the standard library's."""
  library = Path(sysconfig.get_path('stdlib')).resolve()
  monkeypatch.setattr(sys, 'path', [*sys.path, str(library / 'json')])
  hidden = sandbox.sandbox_command(command[0], FILE)
  assert hidden.count(str(library / 'json')) == 2  # A mount, and made read-only.
  assert str(library) not in hidden
  assert str(library / 'lib-dynload') not in hidden


def test_nothing_can_be_written(inside):
  source = """
    import os
    def f(folders):
      written = []
      for folder in folders:
        for act in (lambda path: open(path, 'w').close(), os.mkdir, os.mkfifo):
          try:
            act(f'{folder}/new')
            written.append(folder)
          except OSError:
            pass
      return written
  """
  library = Path(sysconfig.get_path('stdlib')).resolve()
  folders = [
    '',
    '/tmp',
    '/dev',
    '/dev/shm',
    '/var/tmp',
    '/usr',
    '/usr/lib',
    '/lib',
    '/root',
    '/home',
  ]
  folders += [library, library / 'site-packages', *library.parents]
  assert inside(source, [*map(str, folders)]) == []


def test_environment_holds_nothing_of_the_host(inside, monkeypatch):
  monkeypatch.setenv('SECRET', 'a key')
  source = 'import os\ndef f(): return dict(os.environ)'
  assert inside(source).keys() <= {'PYTHONHASHSEED', 'PWD', 'LC_CTYPE', 'LD_LIBRARY_PATH'}


def test_open_files_are_the_two_pipes(inside):
  source = """
    import os, stat
    def f():
      found = {}
      for fd in range(64):
        try:
          found[fd] = stat.S_ISFIFO(os.fstat(fd).st_mode)
        except OSError:
          pass
      return found
  """
  assert inside(source) == {3: True, 4: True}


def test_what_belongs_to_the_user_cannot_be_changed(inside):
  """A root user's own files, for one, among them the devices of the host."""
  source = """
    import os
    def f(paths):
      changed = []
      for path in paths:
        acts = [lambda: os.chmod(path, 0o777), lambda: os.utime(path), lambda: os.chown(path, 0, 0)]
        for act in [*acts, lambda: os.setxattr(path, 'user.x', b'')]:
          try:
            act()
            changed.append(path)
          except OSError:
            pass
      return changed
  """
  library = Path(sysconfig.get_path('stdlib')).resolve()
  paths = ['/', '/program.py', '/usr', '/usr/lib', '/lib64', library / 'os.py', *library.parents]
  assert inside(source, [*map(str, paths), '/dev/null', '/dev']) == []


def test_it_has_no_capability_and_cannot_get_one(inside):
  source = """
    import ctypes, os
    def f():
      libc = ctypes.CDLL(None)
      has = [libc.prctl(23, capability, 0, 0, 0) for capability in range(41)]  # PR_CAPBSET_READ
      return sum(has), libc.prctl(39, 0, 0, 0, 0)  # PR_GET_NO_NEW_PRIVS
  """
  assert inside(source) == (0, 1)


def test_limits_stay(inside):
  source = """
    import resource
    def f():
      limits = 'AS CPU NOFILE FSIZE CORE NPROC'.split()
      for name in limits:
        try:
          resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (-1, -1))
        except ValueError:
          continue
        return name
      return [resource.getrlimit(getattr(resource, f'RLIMIT_{name}')) for name in limits]
  """
  assert inside(source) == [(n, n) for n in (512 * 2**20, 60, 64, 0, 0, 0)]


def test_sets_iterate_in_one_order(inside):
  source = 'def f(): return list({"a", "b", "c", "d", "e", "f"}), hash("x")'
  assert inside(source) == inside(source)


# Its end.


def is_running(pid):
  try:
    return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[-1].split()[0] != 'Z'
  except FileNotFoundError:
    return False


@pytest.mark.parametrize(
  'hang',
  ['while True: pass', 'import time; time.sleep(99)', 'import os; os.kill(os.getpid(), 19)'],
)
def test_kill_ends_what_hangs(command, hang):
  guest = sandbox.start(command, is_sandboxed=True)
  program = remote_calls.RemoteProgram(guest.requests, guest.replies)
  with pytest.raises(remote_calls.Ended, match='timeout'):
    program.load(hang, 0.2)
  assert program.ended == 'timeout'
  assert is_running(guest._pid)
  guest.kill()
  assert not is_running(guest._pid)
  assert guest._process.returncode is not None


def test_it_ends_with_the_process_that_started_it(command):
  hostile = """
import signal
for number in range(1, 65):
  try:
    signal.signal(number, signal.SIG_IGN)
  except (OSError, ValueError):
    pass
while True: pass
"""
  program = f"""
import os, sys
from pkpo_jax.workers import remote_calls, sandbox
guest = sandbox.start({command!r}, is_sandboxed=True)
program = remote_calls.RemoteProgram(guest.requests, guest.replies)
print(guest._pid, flush=True)
try:
  program.load({hostile!r}, 0.2)
except remote_calls.Ended:
  os.kill(os.getpid(), 9)
"""
  run = subprocess.run(
    [sys.executable, '-c', program], cwd=FILE.parents[3], capture_output=True, text=True
  )
  assert run.returncode == -signal.SIGKILL, run.stderr
  pid = int(run.stdout)
  deadline = time.monotonic() + 30
  while is_running(pid) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not is_running(pid)


# Without a sandbox.


def test_start_says_what_is_wrong(tmp_path):
  with pytest.raises(FileNotFoundError):
    sandbox.start([str(tmp_path / 'bwrap')], is_sandboxed=True)
  broken = tmp_path / 'bwrap'
  broken.write_text('#!/bin/sh\necho no namespaces here >&2\nexit 1\n')
  broken.chmod(0o755)
  with pytest.raises(RuntimeError, match='bwrap: no namespaces here'):
    sandbox.start([str(broken)], is_sandboxed=True)


def test_a_sandbox_that_fails_late_says_why(command):
  guest = sandbox.start([*command[:-1], '--no-such-flag'], is_sandboxed=True)
  with pytest.raises(remote_calls.Ended, match='crashed'):
    remote_calls.RemoteProgram(guest.requests, guest.replies)
  assert 'Error' in guest.kill()


def test_probe_notices_each_hole(command):
  """Sandboxes that leave one thing open are refused."""
  unit_tests.probe(command)
  at = command.index('--remount-ro', command.index('/program.py'))
  etc = [*command[:at], '--ro-bind', '/etc', '/etc', *command[at:]]
  with pytest.raises(RuntimeError, match='etc/passwd.* succeeds in it'):
    unit_tests.probe(etc)
  writable = [*command[:at], '--bind', tempfile.gettempdir(), tempfile.gettempdir(), *command[at:]]
  with pytest.raises(RuntimeError, match='succeeds in it'):
    unit_tests.probe(writable)
  broken = [*command[:at], '--tmpfs', str(Path(sys.base_prefix).resolve() / 'bin'), *command[at:]]
  with pytest.raises(RuntimeError, match='Python crashed in it: .*No such file'):
    unit_tests.probe(broken)
