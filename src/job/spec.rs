//! What the author wrote: the job file as serde reads it.

use crate::{
    action::ActionSpec,
    problem::{Json, UniqueMap},
    schedule::{BlackoutPolicySpec, CatchUpSpec, EndSpec, OverlapSpec, PrioritySpec, ScheduleSpec},
    service::{RetrySpec, ServiceSpec},
    units::{Size, Span, Tolerance},
};

crate::spec! {
    /// A job: what is done, when, and within which bounds. One file holds one job; its name is the file's stem.
    pub struct JobSpec as "Job" {
        /// What the job is for, for people.
        description: Option<String>, example "\"Sync last night's vitals of every patient\"";
        /// When it is due.
        schedule: Option<ScheduleSpec>, default "Manual", example "Cron(\"30 2 * * *\")";
        /// The zone of its times and dates, an IANA name.
        timezone: Option<String>, default "the system's", example "\"Europe/Berlin\"";
        /// Starts up to this much later, always the same for a machine and job.
        splay: Option<Span>, example "\"10m\"";
        /// Within this a time that is due counts as on time.
        start_window: Option<Span>, default "1m", example "\"5m\"";
        /// A job that waits for a free place starts within this beyond the start window.
        wait_window: Option<Span>, default "1h", example "\"2h\"";
        /// Which of the times that were missed are made up for.
        catch_up: Option<CatchUpSpec>, default "Latest", example "All(max: 7)";
        /// A missed time older than this is not made up for.
        catch_up_window: Option<Span>, default "half the distance to the next time, at most 7d; none with `All`, whose number bounds it", example "\"12h\"";
        /// What happens when the job is due while it runs.
        overlap: Option<OverlapSpec>, default "Skip", example "Queue";
        /// Local windows in which nothing of the job starts: what the clock on the wall shows, each time that it shows it.
        blackout: Option<Vec<(String, String)>>, example "[(\"07:00\", \"19:00\")]";
        /// What happens to a time inside a blackout window.
        blackout_policy: Option<BlackoutPolicySpec>, default "Skip", example "Delay";
        /// Who goes first when more jobs are due than may run.
        priority: Option<PrioritySpec>, default "Normal", example "High";
        /// A run ends at the latest so long after it started.
        deadline: Option<Span>, default "24h", example "\"2h\"";
        /// Values that texts of the job name as `params.x`; `run --set x=..` replaces one.
        params: Option<UniqueMap<Json>>, example "{ \"vendor\": \"http://127.0.0.1:8787\" }";
        /// Outside things that actions call through.
        services: Option<Vec<ServiceSpec>>, example "[Service(name: \"vendor\", base: \"{{ params.vendor }}\")]";
        /// What is done, in stages joined by bounded channels.
        stages: Option<Vec<StageSpec>>, example "[Stage(name: \"files\", run: [Read(glob: \"/data/*.csv\")]), Stage(name: \"load\", run: [Exec(argv: [\"load\", \"{{ item.path }}\"])])]";
        /// The short form of a job with one thing to do: actions in sequence.
        run: Option<Vec<ActionSpec>>, example "[Exec(argv: [\"/usr/local/bin/rotate-logs.sh\"])]";
        /// With `run`: repeats all its actions when one without a service fails.
        retry: Option<RetrySpec>, default "one attempt", example "Retry(max_attempts: 3, initial_interval: \"1m\")";
        /// With `run`: of one attempt.
        timeout: Option<Span>, example "\"10m\"";
        /// What is done after a run, by how it ended.
        on_finish: Option<Vec<NotifySpec>>, default "that of lamplighter.ron", example "[Notify(run: [Exec(argv: [\"logger\", \"{{ run.summary }}\"])])]";
        /// In folders below `out` named by a date (`{{ run.night }}/..`) that is longer ago than this, what runs of this job wrote is removed after a run of it, once it was not written to for as long; what others wrote or changed stays.
        keep_out: Option<Span>, example "\"30d\"";
        /// URLs of a service that watches over the job from outside, and alarms when it hears nothing in time; `Ping()` has none.
        ping: Option<PingSpec>, default "that of lamplighter.ron", example "Ping(start: \"https://hc.example/night/start\", success: \"https://hc.example/night\", failure: \"https://hc.example/night/fail\")";
    }
}

crate::spec! {
    /// N workers between two bounded channels: the unit of concurrency, record and failure policy.
    pub struct StageSpec as "Stage" {
        /// Unique in the job.
        name: String, example "\"vitals\"";
        /// The stages that it reads; `[]` makes it a source that lists items itself.
        from: Option<Vec<String>>, default "the stage before", example "[\"patients\"]";
        /// Starts when its inputs have ended and sees them all, or all of a group.
        gather: Option<GatherSpec>, example "All";
        /// Actions in sequence on one item.
        run: Vec<ActionSpec>, example "[Http(via: \"vendor\", get: \"/v1/patients\")]";
        /// Names a listed item, or adds a part to the key at a fan-out.
        key: Option<String>, default "the place in the listing", example "\"{{ item.id }}\"";
        /// Items worked on at once.
        workers: Option<u32>, default "1", example "32";
        /// Items that may wait outside the workers (for a retry, a rate).
        waiting: Option<u32>, default "twice the workers, at least 16", example "64";
        /// Items in the channel before this stage; 0 hands over from worker to worker.
        buffer: Option<u32>, default "twice the workers", example "64";
        /// In which order results leave.
        order: Option<OrderSpec>, default "Arrival", example "Input";
        /// Of one attempt on one item, waits not counted.
        timeout: Option<Span>, example "\"30m\"";
        /// Of one item with all its attempts and waits.
        item_deadline: Option<Span>, example "\"5m\"";
        /// Of the stage, from its first item.
        deadline: Option<Span>, example "\"90m\"";
        /// What happens at the deadline of the stage or the run.
        on_deadline: Option<OnDeadlineSpec>, default "Fail", example "Continue";
        /// Repeats all actions of the stage when one without a service fails.
        retry: Option<RetrySpec>, default "one attempt", example "Retry(max_attempts: 3, initial_interval: \"1m\")";
        /// How many items may be missing, as a count or share: more make the run `failed`.
        tolerate: Option<Tolerance>, default "0", example "\"2%\"";
        /// Cancel the run as soon as more is missing than tolerated.
        fail_fast: Option<bool>, default "false", example "true";
        /// Fewer items fail the run: an empty list is no green night.
        min_items: Option<u32>, default "0", example "1";
        /// What one item may give, as JSON.
        max_value: Option<Size>, default "1MB, in a gather 16MB", example "\"4MB\"";
        /// What a resumed run does with an item that was worked on when its process died.
        on_crash: Option<OnCrashSpec>, default "Rerun", example "Hold";
    }
}

crate::choice! {
    /// What a gather sees.
    pub enum GatherSpec as "Gather" {
        /// Everything, as one item.
        All,
        /// One item for each distinct text.
        By(String) example "By(\"{{ item.patient }}\")",
    }
}

crate::choice! {
    /// In which order results leave a stage.
    pub enum OrderSpec as "Order" {
        /// As they are ready.
        Arrival,
        /// As their items arrived; one slow item holds up the stage.
        Input,
    }
}

crate::choice! {
    /// What happens at the deadline of a stage.
    pub enum OnDeadlineSpec as "OnDeadline" {
        /// The run ends `deadline_exceeded`.
        Fail,
        /// The stage takes no more, the rest is counted as not reached, and the run goes on with what there is.
        Continue,
    }
}

crate::choice! {
    /// What a resumed run does with an item that was worked on when its process died.
    pub enum OnCrashSpec as "OnCrash" {
        /// Its attempt begins anew; outside, it may have happened already.
        Rerun,
        /// It is `held`: missing, and never run again unless a person asks for it. Each item waits for the disk before it begins.
        Hold,
    }
}

crate::spec! {
    /// Which URLs are asked, by GET, when a run begins and ends: a dead-man's switch. Templates may stand behind the host.
    pub struct PingSpec as "Ping" {
        /// Asked when a run begins, or goes on after a crash.
        start: Option<String>, example "\"https://hc.example/{{ run.job }}/start\"";
        /// Asked after a run that ended `succeeded` or `partial`.
        success: Option<String>, example "\"https://hc.example/{{ secret.ping_key }}/{{ run.job }}\"";
        /// Asked after a run that ended in any other way, and of a time that was missed.
        failure: Option<String>, example "\"https://hc.example/{{ run.job }}/fail\"";
    }
}

crate::spec! {
    /// What is done after a run that ended in one of these ways.
    pub struct NotifySpec as "Notify" {
        /// After which ends.
        when: Option<Vec<EndSpec>>, default "[Failed, DeadlineExceeded, Interrupted, Quarantined, Missed]", example "[Failed]";
        /// Actions in sequence; `run.outcome`, `run.summary` and `run.report` are at hand.
        run: Vec<ActionSpec>, example "[Exec(argv: [\"logger\", \"{{ run.summary }}\"])]";
    }
}
