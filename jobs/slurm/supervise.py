"""Sees one start of a Slurm job through: `python -m jobs.slurm.supervise RUN -- ARGUMENTS`, which
the batch script becomes on the first node.

    record that the start has begun
    run torchrun on all nodes, until the workers end       jobs/slurm/step.py, node.py
    score, once all parts are done, if the job has a task
    decide what becomes of the job                         jobs/slurm/outcome.py
    record that, and queue the job again if it is to go on

With --finish it is the small job behind an array instead (jobs/slurm/finisher.py).
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from engine.errors import UserError
from jobs.slurm.cause import Seen, cause, said_by_slurm
from jobs.slurm.finisher import all_parts_described
from jobs.slurm.outcome import RUNNING, Known, Verdict, stuck_before, verdict
from jobs.slurm.start import SCORING, ThisStart, job_now, nodes_down, shielded, this_start
from jobs.slurm.step import POLL_S, StepEnd, Told, run_step
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import without_secrets
from pipeline.slurm import commands, records
from pipeline.slurm.commands import NoSlurm, SlurmError
from pipeline.stats.formatting import duration
from pipeline.workers.last_words import bug_report
from pipeline.workers.refusals import why_not_read

MODULE = "pipeline.run"
PATIENCE_S, PAUSE_S = 300.0, 10.0
"""How long to ask a controller of Slurm's that does not answer, and how often."""
LATE_S = 60.0
"""How long files of other nodes may take to be seen here."""


class Supervisor:
    """One start, from its record's beginning to its end."""

    def __init__(self, start: ThisStart, told: Told) -> None:
        self._start = start
        self._told = told
        self._began = time.monotonic()
        self._earlier = start.earlier()
        self._before = start.parts_done()
        self._down: set[str] = set()
        self._log_begin = len(start.log())
        self._record = start.begin(self._before)
        say(
            f"start {start.restart} of job {start.label} on {', '.join(start.nodes)}; "
            f"parts done: {self._before}"
        )

    def run(self, words: Sequence[str] | None) -> int:
        """Do the work and what follows from its end; returns the exit code. `words` are the
        arguments of pipeline.run; None: finish the run of an array."""
        if not self._is_complete() and (why := stuck_before(self._earlier, self._before)):
            return self._conclude(Verdict(outcome="stuck", why=why))
        known = self._finish() if words is None else self._generate(words)
        if known.is_done and self._start.element is None and self._start.submission.task:
            known = self._score()
        return self._conclude(verdict(known))

    def _generate(self, words: Sequence[str]) -> Known:
        """Run the workers, unless an earlier start has got as far as scoring."""
        start = self._start
        if self._earlier and self._earlier[-1].why == SCORING and self._is_complete():
            return self._known(is_done=True)
        if start.element is not None:
            words = [*words, f"share={start.element}/{start.num_elements}"]
        end = None
        if not self._told.is_to_end:
            end = run_step(start, [MODULE, *words], self._told, self._is_ending)
        return self._known_of(end)

    def _finish(self) -> Known:
        """Describe the run if the array's elements have done all parts."""
        why_not = all_parts_described(self._start)
        return self._known(is_done=why_not is None, final=why_not)

    def _score(self) -> Known:
        """Score the run, in a process that Slurm's signals end."""
        start = self._start
        start.scoring(self._record)
        process = subprocess.Popen([sys.executable, "-m", "pipeline.score", str(start.folder.path)])
        while process.poll() is None:
            if self._told.is_to_end:
                process.terminate()
                process.wait()
                break
            time.sleep(POLL_S)
        if process.returncode == 0:  # also if Slurm has told this process to end meanwhile
            return self._known(is_done=True)
        if self._told.is_to_end or process.returncode < 0:
            return self._known_of(None)
        why = (
            f"all parts are done, but scoring them failed (see {start.log_file}); again: "
            f"python -m pipeline.score {start.folder.path}"
        )
        return self._known(final=why)

    def _is_complete(self) -> bool:
        return self._start.parts_done() == self._start.parts_planned()

    def _is_seen_complete(self) -> bool:
        """Whether all parts are done, as this machine sees it: a network file system may show late
        what other nodes have written."""
        end = time.monotonic() + LATE_S
        while not (is_complete := self._is_complete()) and time.monotonic() < end:
            if self._told.is_to_end:
                break
            time.sleep(POLL_S)
        return is_complete

    def _known_of(self, end: StepEnd | None) -> Known:
        """What is known when workers or scoring have ended, or Slurm has said that they must."""
        start, told = self._start, self._told
        if end is not None and end.is_well and self._is_seen_complete():
            return self._known(is_done=True)
        stopped = records.stopped(start.folder, start.job_id, start.element, start.restart)
        job = job_now(start.label)
        self._down.update(nodes_down(start.nodes))
        how, is_too_short = cause(
            Seen(
                end=end,
                job=job,
                restart=start.restart,
                is_warned=told.warned_at is not None,
                is_terminated=told.terminated_at is not None,
                nodes=start.nodes,
                down=sorted(self._down),
                said=said_by_slurm(start.log()[self._log_begin :]),
                messages=[its.message for its in stopped],
            )
        )
        final = next((its.message for its in stopped if its.is_final), None)
        if end is not None and end.is_not_shared:
            final = (
                f"a node does not see what {start.nodes[0]} wrote to the run folder: give output= "
                "(and slurm.folder, if it is set) on a disk that all nodes share"
            )
        ran = duration(time.monotonic() - self._began)
        return self._known(final=final, cause=f"{how}, after {ran}", is_too_short=is_too_short)

    def _known(
        self,
        *,
        is_done: bool = False,
        final: str | None = None,
        cause: str = "",
        is_too_short: bool = False,
    ) -> Known:
        start = self._start
        return Known(
            restart=start.restart,
            is_done=is_done,
            final=final,
            cause=cause,
            is_too_short=is_too_short,
            parts_before=self._before,
            parts_after=start.parts_done(),
            is_complete=self._is_complete(),
            earlier=self._earlier,
            is_cancelled=start.is_cancelled(),
            is_terminated=self._told.terminated_at is not None,
            job=job_now(start.label),
            requeue=start.config.requeue,
            max_requeues=start.config.max_requeues,
        )

    def _is_ending(self) -> bool:
        """Whether it is Slurm that ends this job, after a SIGTERM. If so, record what becomes of
        it: this process may not live until the workers have finished their rows."""
        known = self._known_of(None)
        if known.job is not None and known.job.state == RUNNING:
            return False
        what = verdict(known)
        self._start.end(self._record, known.parts_after, what)
        if what.requeues:  # at the time limit: Slurm does not do it, and may kill this process
            self._requeue(what.why)
        return True

    def _conclude(self, what: Verdict) -> int:
        """Record the verdict, say it, and queue the job again if it says so."""
        if what.outcome is not None:
            self._start.end(self._record, self._start.parts_done(), what)
        done, planned = self._start.parts_done(), self._start.parts_planned()
        of = "" if planned is None else f" of {planned}"
        say(f"{what.outcome or 'ended'}: {what.why}; parts done: {done}{of}")
        if what.requeues and (instead := self._requeue(what.why)):
            return self._conclude(instead)
        return what.exit_code

    def _requeue(self, why: str) -> Verdict | None:
        """Queue the job again; soon after that Slurm ends this process. Returns what becomes of
        the job instead, if Slurm refuses, or has cancelled or queued it meanwhile: a cancelled job
        would be revived."""
        end = time.monotonic() + PATIENCE_S
        while True:
            now = verdict(self._known(cause=why))
            if not now.requeues:
                return now
            try:
                with shielded():
                    commands.requeue(self._start.label)
                return None
            except NoSlurm as error:
                if self._told.terminated_at is not None or time.monotonic() > end:
                    return Verdict(outcome="failed", why=f"{why}; {error}")
                time.sleep(PAUSE_S)
            except SlurmError as error:
                return Verdict(outcome="failed", why=f"{why}; {error}")


def say(message: str) -> None:
    print(f"jobs.slurm: {message}", flush=True)


def arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This program's own arguments, and those of pipeline.run, which stand after `--`."""
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python -m jobs.slurm.supervise", usage="%(prog)s RUN [--finish] -- ARGUMENTS"
    )
    parser.add_argument("run", help="run folder, or an address such as s3://BUCKET/FOLDER")
    parser.add_argument("--finish", action="store_true", help="finish the run of an array")
    return parser.parse_args(argv[:at]), list(argv[at + 1 :])


def main(argv: Sequence[str]) -> int:
    told = Told()
    told.listen()
    args, words = arguments(argv)
    try:
        return Supervisor(this_start(RunFolder(args.run)), told).run(None if args.finish else words)
    except UserError as error:
        say(without_secrets(str(error)))
        return 1
    except OSError as error:
        say(why_not_read(error, args.run))
        return 1
    except Exception as error:
        say(bug_report(error))
        raise SystemExit(1) from error
    finally:
        told.stop_listening()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
