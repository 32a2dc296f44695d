"""Makes AWS's base image for Lambda functions in Python present; where it can't be pulled, builds a stand-in.

The stand-in has the real image's contract: `/lambda-entrypoint.sh` with the handler as its only argument, the
runtime interface emulator (RIE) on port 8080 unless AWS_LAMBDA_RUNTIME_API is set, the runtime interface client and
boto3 in `/var/runtime` behind the function's own packages in `/var/task`, the interpreter and pip in `/var/lang/bin`,
root as the user. It differs from the real one:

- Debian with glibc 2.41 or newer, not Amazon Linux 2023 with glibc 2.34: a wheel that needs a newer glibc than Lambda
  has installs here and not there. There is no `dnf`, and system packages have Debian's names.
- The interpreter is Debian's (3.13 from trixie, 3.14 from forky) or a copy of this machine's (3.12), so its patch
  release and its build options differ, and with them the absolute times of a cold start.
- pip, boto3 and the runtime interface client have the versions of `base_image/requirements.txt`.
- This machine's CA certificates are inside, with PIP_CERT and SSL_CERT_FILE pointing to them.
- The processor architecture is this machine's.
- Builds on it take PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_TRUSTED_HOST as arguments and don't keep them.

Two limits are the emulator's and the real image has them too: the RIE answers one request at a time and crashes on
concurrent ones, and `context.invoked_function_arn` is always that of `test_function`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from uv import find_uv_bin

from sandbox.engine import KEYRING, STATE, apt_install, debian_mirror, ensure_buildx, ensure_engine, exclusive
from sandbox.interpreters import self_contained_prefix
from sandbox.progress import StageFailed, note, run, stage

FILES = Path(__file__).with_name("base_image")
RIE_REQUIREMENTS = Path(__file__).with_name("rie-requirements.txt")
FIRST_ANSWER = 60.0
PULL = 900.0
COPIED = "/var/lang/"
FOR_LABEL = "stand-in-for"
RECIPE_LABEL = "stand-in-recipe"
PIP_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


@dataclass(frozen=True)
class Tree:
    """The Debian a stand-in consists of, and where its interpreter comes from."""

    suite: str
    packages: tuple[str, ...]
    interpreter: str
    site_packages: str


def _debian_python(suite: str, version: str) -> Tree:
    packages = ("ca-certificates", f"python{version}", f"python{version}-venv")
    return Tree(suite, packages, f"/usr/bin/python{version}", f"/usr/local/lib/python{version}/dist-packages")


TREES = {
    # no Debian suite has 3.12: the libraries that a CPython of this machine is linked with
    "3.12": Tree(
        "trixie",
        (
            "ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "libgdbm6t64", "liblzma5", "libncursesw6",
            "libreadline8t64", "libsqlite3-0", "libssl3t64", "libuuid1", "zlib1g",
        ),
        f"{COPIED}bin/python3.12",
        f"{COPIED}lib/python3.12/site-packages",
    ),
    "3.13": _debian_python("trixie", "3.13"),
    "3.14": _debian_python("forky", "3.14"),
}  # fmt: skip
# what a function never reads
LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")

# what is not copied with an interpreter of this machine: its tests, what was installed into it, variants nobody loads
NOT_COPIED = ("test", "tests", "idlelib", "turtledemo", "site-packages", "config-*", "*.opt-?.pyc")


def image_name(python_version: str) -> str:
    """The name under which the base image for `python_version` (e.g. "3.13") is pulled, or its stand-in is kept."""
    return f"public.ecr.aws/lambda/python:{python_version}"


def ensure_base_image(python_version: str) -> bool:
    """Make the base image for `python_version` (3.12, 3.13, 3.14) present; return whether it's the stand-in.

    An image that is there is used, unless it's a stand-in built by an older recipe. Raises NoEngine without a container
    engine, StageFailed where neither pulling nor building works.
    """
    ensure_engine()
    name = image_name(python_version)
    if python_version not in TREES:
        raise StageFailed(f"There is no base image for Python {python_version}: choose one of {', '.join(TREES)}.")
    with exclusive(STATE / f"base-image-{python_version}.lock"):
        labels = _labels(name)
        if labels is not None and labels.get(RECIPE_LABEL, _recipe(python_version)) == _recipe(python_version):
            return FOR_LABEL in labels
        if labels is None:
            try:
                with stage(f"Pull {name}"):
                    _pull(name)
                return False
            except StageFailed as error:
                note(f"{error}: building a stand-in under the same name.")
        _build_stand_in(python_version)
        return True


def is_stand_in(python_version: str) -> bool:
    """Whether the base image present for `python_version` is the stand-in; False when there is none."""
    return FOR_LABEL in (_labels(image_name(python_version)) or {})


def pip_build_arguments() -> list[str]:
    """`docker build` arguments that lend the pip index this machine's environment names, if any, to the build alone."""
    return [word for name in PIP_SETTINGS if name in os.environ for word in ("--build-arg", name)]


def _labels(image: str) -> dict[str, str] | None:
    done = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if done.returncode != 0:
        return None
    labels: dict[str, str] | None = json.loads(done.stdout)
    return labels or {}


def _pull(name: str) -> None:
    """Pull `name`. Raises StageFailed where the registry doesn't answer within FIRST_ANSWER seconds, or refuses."""
    process = subprocess.Popen(
        ["docker", "pull", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(FIRST_ANSWER):
                raise StageFailed(f"{name} can't be pulled (no answer within {FIRST_ANSWER:.0f} s)")
        # the registry answers: a slow line is no reason for a stand-in
        output, _ = process.communicate(timeout=PULL)
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"{name} can't be pulled (not complete after {PULL:.0f} s)") from error
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
        process.stdout.close()
    if process.returncode != 0:
        lines = output.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise StageFailed(f"{name} can't be pulled ({lines[-1]})")


def _recipe(python_version: str) -> str:
    """A hash of all that decides what the stand-in holds."""
    recipe = hashlib.sha256(f"{_tree_recipe(python_version)} {platform.machine()}".encode())
    for file in (*sorted(FILES.iterdir()), RIE_REQUIREMENTS, _certificates()):
        recipe.update(file.read_bytes())
    return recipe.hexdigest()[:16]


def _tree_recipe(python_version: str) -> str:
    tree = TREES[python_version]
    copied = NOT_COPIED if tree.interpreter.startswith(COPIED) else ()
    return hashlib.sha256(f"{tree} {LEFT_OUT} {copied}".encode()).hexdigest()[:16]


def _certificates() -> Path:
    """The CA certificates this machine trusts."""
    named = [os.environ[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if os.environ.get(name)]
    for path in map(Path, (*named, "/etc/ssl/certs/ca-certificates.crt")):
        if path.is_file():
            return path
    raise StageFailed("No CA certificates found here: `apt-get install ca-certificates`, or set SSL_CERT_FILE.")


def _build_stand_in(python_version: str) -> None:
    ensure_buildx()
    tree_image = f"lambda-stand-in-tree:{python_version}-{_tree_recipe(python_version)}"
    if _labels(tree_image) is None:
        with stage(f"Set up Debian for the Python {python_version} stand-in"), _scratch() as scratch:
            _import_tree(TREES[python_version], python_version, scratch, tree_image)
    with stage(f"Build the stand-in for {image_name(python_version)}"), _scratch() as context:
        _fill_context(python_version, context)
        tree = TREES[python_version]
        arguments = {
            "TREE": tree_image,
            "INTERPRETER": tree.interpreter,
            "SITE_PACKAGES": tree.site_packages,
            "PYTHON_VERSION": python_version,
        }
        labels = {FOR_LABEL: image_name(python_version), RECIPE_LABEL: _recipe(python_version)}
        run(
            [
                "docker", "buildx", "build", "--load", "--provenance=false", "--sbom=false",
                *(word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))),
                *(word for pair in labels.items() for word in ("--label", "=".join(pair))),
                "--tag", image_name(python_version), context,
            ],
            timeout=600,
        )  # fmt: skip


@contextmanager
def _scratch() -> Iterator[Path]:
    """A new directory on the checkout's disk (/tmp is often a small one, or can't hold devices)."""
    STATE.mkdir(exist_ok=True)
    path = Path(mkdtemp(dir=STATE, prefix="base-image-"))
    try:
        yield path
    finally:
        # an interrupted debootstrap leaves /proc mounted inside its tree
        run(["rm", "-rf", "--one-file-system", path], timeout=120)


def _import_tree(tree: Tree, python_version: str, scratch: Path, image: str) -> None:
    if os.geteuid() != 0:
        raise StageFailed(
            f"Building the stand-in for {image_name(python_version)} needs root (debootstrap): run this as root once, "
            f"or `docker pull {image_name(python_version)}` on a machine that reaches the registry."
        )
    if shutil.which("debootstrap", path="/usr/sbin:/sbin") is None or not KEYRING.exists():
        apt_install("debootstrap", "debian-archive-keyring")
    root = scratch / "root"
    run(
        [
            # debootstrap may be older than the suite and know no script of its name: all Debian suites share this one
            "/usr/sbin/debootstrap", "--variant=minbase", f"--keyring={KEYRING}",
            f"--include={','.join(tree.packages)}",
            tree.suite, root, debian_mirror(), "/usr/share/debootstrap/scripts/sid",
        ],
        timeout=1200,
    )  # fmt: skip
    if tree.interpreter.startswith(COPIED):
        _copy_interpreter(python_version, root / COPIED.lstrip("/"))
    archive = scratch / "root.tar"
    run(["tar", "-C", root, *(f"--exclude=./{path}/*" for path in LEFT_OUT), "-cf", archive, "."], timeout=300)
    run(["docker", "import", archive, image], timeout=300)


def _copy_interpreter(python_version: str, target: Path) -> None:
    """Copy a CPython of this machine with its standard library, but not its tests nor what was installed into it."""
    prefix = self_contained_prefix(python_version)
    library = f"lib/python{python_version}"
    run(["mkdir", "-p", target / "bin", target / library], timeout=10)
    shutil.copy2(prefix / f"bin/python{python_version}", target / f"bin/python{python_version}")
    shutil.copytree(prefix / library, target / library, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    shutil.copytree(prefix / "include", target / "include")
    for shared in prefix.glob("lib/libpython3*.so*"):
        shutil.copy2(shared, target / "lib", follow_symlinks=False)


def _fill_context(python_version: str, context: Path) -> None:
    shutil.copytree(FILES, context, dirs_exist_ok=True)
    shutil.copyfile(_certificates(), context / "ca-certificates.crt")
    _install(FILES / "requirements.txt", python_version, context / "runtime")
    # pip belongs to the interpreter, the rest to the runtime
    (context / "pip").mkdir()
    for part in (context / "runtime").glob("pip*"):
        shutil.move(part, context / "pip")
    shutil.rmtree(context / "runtime/bin")
    _install(RIE_REQUIREMENTS, python_version, context / "sam")
    architecture = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    emulator = context / f"sam/samcli/local/rapid/aws-lambda-rie-{architecture}"
    if not emulator.exists():
        raise StageFailed(f"There is no runtime interface emulator for {architecture} in aws-sam-cli.")
    emulator.chmod(0o755)
    shutil.move(emulator, context / "aws-lambda-rie")


def _install(requirements: Path, python_version: str, target: Path) -> None:
    environment = dict(os.environ)
    if index := environment.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    run(
        [
            find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--python-version", python_version,
            "--python-platform", f"{platform.machine()}-manylinux_2_28", "--only-binary", ":all:", "--no-deps",
            "--require-hashes", "--target", target, "--requirement", requirements,
        ],
        timeout=600,
        env=environment,
    )  # fmt: skip
