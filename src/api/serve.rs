//! The daemon's side of the socket: who connects, what is answered.

use super::protocol::{Answer, Begun, Follow, Request, Whereabouts};
use crate::{
    action::{Listener, Said},
    daemon::{Handle, Jobs, Refusal},
    item::{RunRecord, StoredRecord},
    limits::{
        API_ACCEPT_PAUSE, API_CONNECTIONS_MAX, API_FAREWELL_MAX, API_FOLLOWERS_MAX, API_LINES_MAX, API_PICTURE_EVERY,
        API_REQUEST_BYTES_MAX, API_REQUEST_MAX, API_WHO_BYTES_MAX, API_WRITE_MAX,
    },
    query::{Piece, Runs, Unanswered},
    run::RunHandle,
    store::State,
    world::{Due, Task, World},
};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smol::Async;
use std::{
    collections::BTreeMap,
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Answers what is asked of a daemon on its socket.
#[derive(Clone)]
pub struct Server {
    world: World,
    state: State,
    jobs: Arc<dyn Jobs>,
    handle: Handle,
    place: Arc<Whereabouts>,
    followers: Arc<AtomicUsize>,
}

/// A connection.
struct Open {
    /// Its request has come.
    has_asked: Arc<AtomicBool>,
    task: Task<()>,
}

/// Whoever asked has gone, or does not read.
#[derive(Debug)]
struct Gone;

impl Server {
    /// For the daemon of this handle, with its jobs and its state, which has its things at this place.
    pub fn new(world: World, state: State, jobs: Arc<dyn Jobs>, handle: Handle, place: Whereabouts) -> Server {
        Server { world, state, jobs, handle, place: Arc::new(place), followers: Arc::default() }
    }

    /// Answers until `stop` is closed. Then nobody is heard any more, and who follows a run may still read for a moment how it
    /// ended.
    ///
    /// # Errors
    /// When the listener cannot be used.
    ///
    /// # Cancel safety
    /// Dropping it hangs up on everybody. Runs go on.
    pub async fn serve(self, listener: UnixListener, stop: async_channel::Receiver<()>) -> io::Result<()> {
        let listener = Async::new(listener)?;
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        let mut number = 0;
        let mut is_refused = false;
        loop {
            let accepted = async { Some(listener.accept().await) };
            let stopped = async {
                let _ = stop.recv().await;
                None
            };
            let accepted = stopped.or(accepted).await;
            open.retain(|_, connection| !connection.task.is_finished());
            match accepted {
                None => break,
                Some(Ok((stream, _))) => {
                    is_refused = false;
                    if open.len() >= API_CONNECTIONS_MAX && !hang_up_on_the_silent(&mut open).await {
                        refuse(&stream);
                        continue;
                    }
                    number += 1;
                    let has_asked = Arc::new(AtomicBool::new(false));
                    let talk = self.clone().talk(stream, has_asked.clone());
                    open.insert(number, Open { has_asked, task: self.world.spawn(talk) });
                }
                Some(Err(error)) => {
                    // No descriptor is free, most likely: one is given back, and the daemon does not spin.
                    if !std::mem::replace(&mut is_refused, true) {
                        log::warn!(target: "lamplighter::api", "a connection cannot be taken: {error}");
                    }
                    hang_up_on_the_silent(&mut open).await;
                    self.world.sleep(API_ACCEPT_PAUSE).await;
                }
            }
            // Who connects without end takes turns with all others.
            future::yield_now().await;
        }
        drop(listener);
        open.retain(|_, connection| connection.has_asked.load(Ordering::Acquire));
        let farewell = async {
            for connection in open.into_values() {
                connection.task.await;
            }
        };
        farewell.or(self.world.sleep(API_FAREWELL_MAX)).await;
        Ok(())
    }

    /// One connection, from its request to its answer.
    async fn talk(self, stream: Async<UnixStream>, has_asked: Arc<AtomicBool>) {
        let to = Arc::new(Peer { stream, world: self.world.clone() });
        let late = async {
            self.world.sleep(API_REQUEST_MAX).await;
            Err(format!("no request came within {} seconds", API_REQUEST_MAX.as_secs()))
        };
        let request = to.request().or(late).await;
        has_asked.store(true, Ordering::Release);
        let told = match request {
            Ok(None) => return,
            Ok(Some(request)) => {
                let answered = async { self.answer(&to, request).await };
                let gone = async {
                    to.hung_up().await;
                    Err(Gone)
                };
                answered.or(gone).await
            }
            Err(why) => to.tell(&Answer::Refused(Refusal::Wrong(why))).await,
        };
        // Who has gone needs no answer.
        drop(told);
    }

    async fn answer(&self, to: &Arc<Peer>, request: Request) -> Result<(), Gone> {
        let _follower = match self.follower(&request) {
            Ok(follower) => follower,
            Err(refusal) => return to.tell(&Answer::Refused(refusal)).await,
        };
        if let Request::Run { named, .. } | Request::Retry { named, .. } = &request
            && let Err(why) = self.place.has(named)
        {
            return to.tell(&Answer::Refused(Refusal::Wrong(why))).await;
        }
        let pieces = {
            let to = to.clone();
            move |piece| to.clone().piece(piece)
        };
        let answer = match request {
            Request::Overview => self.handle.overview().await.map(Answer::Overview),
            Request::List => self.handle.list().await.map(Answer::Overview),
            Request::Run { wish, .. } if wish.trigger != "manual" && wish.trigger != "api" => {
                Err(Refusal::Wrong(format!("a run is `manual` or `api`, not `{}`", wish.trigger)))
            }
            Request::Run { wish, follow, .. } => {
                let (lines, listener) = Lines::of(follow.as_ref());
                match self.handle.run(wish, listener).await {
                    Ok(run) => return self.follow(to, &run, follow, lines).await,
                    Err(refusal) => Err(refusal),
                }
            }
            Request::Retry { run, held, follow, .. } => {
                let run = match self.runs().find(&run).await {
                    Ok(details) => details.head.run.to_string(),
                    Err(why) => return to.told(Err(why)).await,
                };
                let (lines, listener) = Lines::of(follow.as_ref());
                match self.handle.retry(&run, held, listener).await {
                    Ok(run) => return self.follow(to, &run, follow, lines).await,
                    Err(refusal) => Err(refusal),
                }
            }
            Request::Cancel { by, .. } if by.len() > API_WHO_BYTES_MAX || by.chars().any(char::is_control) => {
                Err(Refusal::Wrong(format!("`by` is a word of at most {API_WHO_BYTES_MAX} bytes")))
            }
            Request::Cancel { run, by, kill } => {
                self.handle.cancel(&run, &by, kill).await.map(|run| Answer::Names(vec![run]))
            }
            Request::Pause { until: Some(until), .. } if until <= self.world.wall() => {
                Err(Refusal::Wrong(format!("{until} has passed")))
            }
            Request::Pause { which, until } => self.handle.pause(which, until).await.map(Answer::Names),
            Request::Resume { which } => self.handle.resume(which).await.map(Answer::Names),
            Request::Reload => self.handle.reload().await.map(Answer::Problems),
            Request::History(question, form) => {
                return to.told(self.runs().history(&question, form, pieces).await).await;
            }
            Request::Show(question, form) => return to.told(self.runs().show(&question, form, pieces).await).await,
            Request::Logs(question, form) => return to.told(self.runs().logs(&question, form, pieces).await).await,
        };
        to.tell(&answer.unwrap_or_else(Answer::Refused)).await
    }

    /// A place among those who follow something, for a request that does.
    fn follower(&self, request: &Request) -> Result<Option<Follower>, Refusal> {
        if !request.stays() {
            return Ok(None);
        }
        let follower = Follower(self.followers.clone());
        match self.followers.fetch_add(1, Ordering::AcqRel) < API_FOLLOWERS_MAX {
            true => Ok(Some(follower)),
            false => Err(Refusal::Busy(format!(
                "{API_FOLLOWERS_MAX} others follow a run or a log already: `--detach` starts a run without following it"
            ))),
        }
    }

    fn runs(&self) -> Runs<'_> {
        let jobs = self.jobs.clone();
        let names = Arc::new(move || jobs.list().unwrap_or_default().into_keys().collect());
        Runs { state: &self.state, world: &self.world, jobs: names }
    }

    /// Tells that a run has begun, and, where it is followed, all of it to its end.
    async fn follow(&self, to: &Peer, run: &RunHandle, follow: Option<Follow>, lines: Lines) -> Result<(), Gone> {
        let progress = run.progress();
        let begun = Begun {
            run: run.id().to_owned(),
            job: run.job().to_owned(),
            out: std::path::absolute(run.out()).unwrap_or_else(|_| PathBuf::from(run.out())),
            stages: progress.stages.len(),
        };
        to.tell(&Answer::Begun(begun)).await?;
        let Some(follow) = follow else { return Ok(()) };
        let mut ended = pin!(self.handle.end(run.id()));
        let mut picture = self.world.awake();
        let record = loop {
            let line = async { Next::Line(lines.next().await) };
            let ended = async { Next::Ended(ended.as_mut().await) };
            let tick = async {
                if !follow.picture {
                    future::pending::<()>().await;
                }
                self.world.until(Due::Awake(picture)).await;
                Next::Tick
            };
            match line.or(ended).or(tick).await {
                Next::Line(said) => to.tell(&Answer::Said(said)).await?,
                Next::Ended(record) => break record,
                Next::Tick => {
                    to.tell(&Answer::Progress(run.progress())).await?;
                    picture = self.world.awake() + API_PICTURE_EVERY;
                }
            }
        };
        while let Some(said) = lines.last() {
            to.tell(&Answer::Said(said)).await?;
        }
        // It may have ended before anybody asked how. Without a record the answer ends here, cut off: the state has failed.
        let record = match record {
            Some(record) => Some(record),
            None => self.stored(run.id()).await,
        };
        match record {
            Some(record) => to.tell(&Answer::Ended(Box::new(record))).await,
            None => Ok(()),
        }
    }

    async fn stored(&self, run: &str) -> Option<RunRecord> {
        let details = self.state.details(run).await.ok()??;
        let stored: StoredRecord = serde_json::from_str(details.record.as_deref()?).ok()?;
        Some(stored.record)
    }
}

enum Next {
    Line(Said),
    Ended(Option<RunRecord>),
    Tick,
}

/// Somebody who follows something.
struct Follower(Arc<AtomicUsize>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends the connection that has been without a request for longest. False when all have asked something.
async fn hang_up_on_the_silent(open: &mut BTreeMap<u64, Open>) -> bool {
    let silent = open.iter().find(|(_, connection)| !connection.has_asked.load(Ordering::Acquire));
    let Some(number) = silent.map(|(number, _)| *number) else { return false };
    if let Some(connection) = open.remove(&number) {
        connection.task.cancel().await;
    }
    true
}

/// Says that there is no place.
fn refuse(stream: &Async<UnixStream>) {
    let why = format!("{API_CONNECTIONS_MAX} others are connected: try again");
    let line = serde_json::to_string(&Answer::Refused(Refusal::Busy(why))).unwrap_or_default();
    // A new connection has room for a line.
    let _ = io::Write::write_all(&mut stream.get_ref(), format!("{line}\n").as_bytes());
}

/// Lines of a run on their way to whoever follows it.
struct Lines {
    lines: async_channel::Receiver<Said>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    fn of(follow: Option<&Follow>) -> (Lines, Option<Listener>) {
        let (sender, lines) = async_channel::bounded(API_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let listener = follow.map(|follow| -> Listener {
            let debug = follow.debug;
            Arc::new(move |said: Said| {
                let is_wanted = debug || !matches!(said.level.as_str(), "DEBUG" | "TRACE");
                if is_wanted && sender.try_send(said).is_err() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        (Lines { lines, lost }, listener)
    }

    async fn next(&self) -> Said {
        match self.lines.recv().await {
            Ok(said) => said,
            Err(_) => future::pending().await,
        }
    }

    /// One that is left when the run has ended; in the end how many found no room.
    fn last(&self) -> Option<Said> {
        if let Ok(said) = self.lines.try_recv() {
            return Some(said);
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        (lost > 0).then(|| Said {
            level: "WARN".to_owned(),
            target: "lamplighter::api".to_owned(),
            text: format!("{lost} more lines were written faster than they were read: `lamplighter logs` has them"),
            fields: Vec::new(),
        })
    }
}

/// Whoever is connected.
struct Peer {
    stream: Async<UnixStream>,
    world: World,
}

impl Peer {
    /// Its request; `None` when it went without one.
    async fn request(&self) -> Result<Option<Request>, String> {
        let (mut line, mut block) = (Vec::new(), [0; 4096]);
        loop {
            let read = (&self.stream).read(&mut block).await.map_err(|error| error.to_string())?;
            let end = block[..read].iter().position(|byte| *byte == b'\n');
            line.extend_from_slice(&block[..end.unwrap_or(read)]);
            if line.len() > API_REQUEST_BYTES_MAX {
                return Err(format!("a request has at most {API_REQUEST_BYTES_MAX} bytes"));
            }
            if end.is_some() || read == 0 {
                break;
            }
        }
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| format!("that is no request: {error}"))
    }

    async fn tell(&self, answer: &Answer) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(answer).map_err(|_| Gone)?;
        line.push(b'\n');
        let sent = async { (&self.stream).write_all(&line).await.map_err(|_| Gone) };
        let late = async {
            self.world.sleep(API_WRITE_MAX).await;
            Err(Gone)
        };
        sent.or(late).await
    }

    /// Owned: a future that borrows who takes it is not known to be `Send` where it is used.
    async fn piece(self: Arc<Peer>, piece: Piece) -> Result<(), Gone> {
        let answer = match piece {
            Piece::Answer(text) => Answer::Text(text),
            Piece::Note(line) => Answer::Note(line),
        };
        self.tell(&answer).await
    }

    /// The end of an answer in pieces.
    async fn told(&self, told: Result<(), Unanswered<Gone>>) -> Result<(), Gone> {
        let last = match told {
            Ok(()) => Answer::Done,
            Err(Unanswered::Refused(why)) => Answer::Refused(Refusal::NoRun(why)),
            Err(Unanswered::State(error)) => Answer::Failed(error.to_string()),
            Err(Unanswered::Reader(gone)) => return Err(gone),
        };
        self.tell(&last).await
    }

    /// Returns when the other side is gone, or says on and on what nobody has asked for. One that only says nothing more is
    /// there, and reads.
    async fn hung_up(&self) {
        let (mut block, mut more) = ([0; 512], 0);
        while let Ok(read) = (&self.stream).read(&mut block).await {
            more += read;
            if more > API_REQUEST_BYTES_MAX {
                return;
            }
            if read > 0 {
                // Who writes faster than it is read takes turns with all others.
                future::yield_now().await;
                continue;
            }
            let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            if !fds[0].revents().contains(PollFlags::HUP) {
                future::pending::<()>().await;
            }
            return;
        }
    }
}
