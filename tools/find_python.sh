#!/bin/sh
# Prints the path of the first Python on this machine that is new enough and can make a virtual
# environment, or says on stderr what was tried and exits 1. BASE_PYTHON names one to use instead.

needs='3.12'
check='import sys, venv, ensurepip; sys.exit(sys.version_info[:2] < (3, 12))'
tried=''

suits() { # Runs it, because a pyenv shim exists also for versions that are not installed.
  [ -x "$1" ] || return 1
  "$1" -c "$check" >/dev/null 2>&1 && return 0
  version=$("$1" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
  case "$version" in
    'Python 2.'* | 'Python 3.'[0-9].* | 'Python 3.1'[01].*) why="$version" ;;
    'Python '*) why="$version without the venv or ensurepip module" ;;
    *) why='does not run' ;;
  esac
  tried="$tried
  $1 ($why)"
  return 1
}

take() {
  # Where the interpreter itself lies: a shim would change with the folder it is called from.
  "$1" -c 'import sys; print(sys.executable)'
  exit 0
}

if [ -n "$BASE_PYTHON" ]; then
  path=$(command -v "$BASE_PYTHON") || path="$BASE_PYTHON"
  suits "$path" && take "$path"
  echo "BASE_PYTHON=$BASE_PYTHON: need Python >= $needs, found:${tried:- no such program}" >&2
  exit 1
fi

# python3 first: it honours .python-version. Then what is on PATH by version, then pyenv's own.
IFS=:
for name in python3 python3.12 python3.13 python3.14 python; do
  for folder in $PATH; do
    suits "$folder/$name" && take "$folder/$name"
  done
done
unset IFS
for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
  suits "$path" && take "$path"
done

echo "No Python >= $needs found. Tried:${tried:- nothing, PATH has no python3}
Install one (pyenv install $needs, or the system's package manager), or name one:
  make BASE_PYTHON=/path/to/python3.12 ..." >&2
exit 1
