"""Every hostile artefact, opened by every command that opens such a file, under an audit hook.

    python benchmarks/hostile.py [KIND or NAME ...] [--folder TMP]

Prints what must not be, then one line of figures; exits with 1 if anything was. Kinds: old (.pth), checkpoint,
work_dir, adapter, model, data, registry, cache, config, foreign, override. Takes about half an hour on two cores and
2 GB of disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "security")]


def main() -> int:
    """Run the campaign."""
    import hostile
    import hostile_caches  # noqa: F401
    import hostile_checkpoints  # noqa: F401
    import hostile_containers  # noqa: F401
    import hostile_data  # noqa: F401
    import hostile_files  # noqa: F401
    import hostile_imports  # noqa: F401
    import hostile_migrations  # noqa: F401
    import hostile_models  # noqa: F401
    import hostile_registries  # noqa: F401
    import hostile_run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", metavar="KIND or NAME", help="default: all")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    known = hostile.REGISTRY.values()
    chosen = [a for a in known if not args.which or a.kind in args.which or a.name in args.which]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        world = hostile.make_world((args.folder or Path(temporary)).resolve() / "world")
        outcomes = hostile_run.run_jobs(world, hostile.make_jobs(world, chosen))
        leaks = hostile_run.leaks(world)
    bad = [outcome for outcome in outcomes if outcome.faults()]
    for outcome in bad:
        words = " ".join(outcome.words).replace(str(world.root), "")
        print(f"{outcome.artefact}: {words[:160]}\n  {outcome.faults()}\n  {outcome.err.strip()[-400:]!r}")
    for leak in leaks:
        print(leak)
    events = Counter(event.split("\t")[0] for outcome in outcomes for event in outcome.events)
    print(
        f"{len(chosen)} artefacts, {len(outcomes)} commands, {sum(o.code == 2 for o in outcomes)} refused; "
        f"code executions, sockets and writes elsewhere seen by the hook: {events.total()} {dict(events) or ''}; "
        f"files outside the run folder or leaked: {len(leaks)}; commands that ended otherwise: {len(bad)}; "
        f"slowest {max(o.seconds for o in outcomes):.1f} s; {time.monotonic() - began:.0f} s in all"
    )
    return 1 if bad or leaks else 0


if __name__ == "__main__":
    sys.exit(main())
