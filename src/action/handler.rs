//! `Call`: handlers written in Rust, by name.
//!
//! An embedder registers them in [`Handlers`] before jobs are loaded; a job that names one that does not exist does not
//! load.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, Seat, Stop, files, values::Tree};
use crate::{
    item::{Class, Failure, Key, Value},
    lang::{Checker, Facts},
    problem::{Json, UniqueMap, closest},
    service::Admitted,
    world::{Boot, BoxFuture, World},
};
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

crate::spec! {
    /// Calls a handler written in Rust; gives its result.
    pub struct CallSpec as "Call" {
        /// Name of the handler.
        handler: String, example "\"score\"";
        /// What it is given beside the value; texts are templates.
        args: Option<UniqueMap<Json>>, example "{\"threshold\": 3}";
        /// Puts the result into this field of the value.
        into: Option<String>, example "\"score\"";
    }
}

/// Calls the handler of this name and hands on what it gives.
type Handler = Arc<dyn for<'a> Fn(&'a str, Call, &'a mut dyn Out) -> BoxFuture<'a, Acted> + Send + Sync>;

/// Handlers by name. Cheap to clone.
///
/// ```
/// use lamplighter::{
///     action::{Call, CallError, Handlers},
///     item::Value,
/// };
///
/// let handlers = Handlers::new()
///     .add("double", |call: Call| async move {
///         let n = call.value.as_i64().ok_or_else(|| CallError::give_up("this is no number"))?;
///         Ok(Value::from(2 * n))
///     })?
///     .add("ask", |call: Call| async move {
///         // Waits on the run's clock, and ends when the item's time is up.
///         call.sleep(std::time::Duration::from_millis(10)).await;
///         Err::<Value, _>(CallError::retry("nobody answers"))
///     })?;
/// assert_eq!(handlers.names().collect::<Vec<_>>(), ["ask", "double"]);
/// # Ok::<(), lamplighter::action::HandlerError>(())
/// ```
#[derive(Clone, Default)]
pub struct Handlers(Arc<BTreeMap<String, Handler>>);

/// What a handler is called with.
#[derive(Clone)]
pub struct Call {
    /// What the action before gave.
    pub value: Arc<Value>,
    /// The item's key; in a source that of nothing.
    pub key: Key,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    // What most calls do not have is not shared with each: counting who has it is dear.
    item: Option<Arc<Value>>,
    args: Option<Arc<Value>>,
    state: Option<Arc<Value>>,
    action_place: u16,
    value_place: u32,
    seat: Arc<Seat>,
}

/// Why a handler gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What happened, without item values.
    pub message: String,
    /// The stage's own `retry` may repeat it.
    pub retry: bool,
}

/// Why a handler was not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerError {
    /// There is one of this name.
    Twice(String),
    /// The name is empty, or has other characters than letters, digits, `-`, `_` and `.`.
    Name(String),
}

impl Handlers {
    /// No handler.
    pub fn new() -> Handlers {
        Handlers::default()
    }

    /// These handlers and one more. It gives a [`Value`], or an `Arc` of one (what it was called with, without a copy). It
    /// runs on the run's executor: work that blocks belongs into [`World::unblock`](crate::world::World::unblock). A panic
    /// in it is the item's failure.
    ///
    /// # Errors
    /// When the name is taken or unusable.
    pub fn add<F, R, V>(mut self, name: &str, handler: F) -> Result<Handlers, HandlerError>
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<V, CallError>> + Send + 'static,
        V: Into<Arc<Value>> + Send,
    {
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(usable) {
            return Err(HandlerError::Name(name.to_owned()));
        }
        if self.0.contains_key(name) {
            return Err(HandlerError::Twice(name.to_owned()));
        }
        let mut all = BTreeMap::clone(&self.0);
        all.insert(name.to_owned(), handing_on(handler));
        self.0 = Arc::new(all);
        Ok(self)
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// One box for the handler's future and what becomes of its value.
fn handing_on<F, R, V>(handler: F) -> Handler
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<V, CallError>> + Send + 'static,
    V: Into<Arc<Value>> + Send,
{
    Arc::new(move |name, call, out| {
        let given = handler(call);
        Box::pin(async move {
            match given.await {
                Ok(value) => out.hand(value.into()).await,
                Err(error) => {
                    let message = format!("handler `{name}`: {}", error.message);
                    Err(Stop::Failed { failure: Failure::new(Class::Call, message), given_up: !error.retry }.into())
                }
            }
        })
    })
}

impl Call {
    /// What came into the stage. In the first action that is `value` itself: to be asked before `value` is taken or changed.
    pub fn item(&self) -> &Arc<Value> {
        self.item.as_ref().unwrap_or(&self.value)
    }

    /// The rendered `args`, an object.
    pub fn args(&self) -> &Value {
        static NONE: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));
        self.args.as_deref().unwrap_or(&NONE)
    }

    /// What an action `Keep` of the job kept for this key in a run with an earlier due, the newest of them: `state` in
    /// templates. Null where there is none, in a job without `Keep`, and in a run that is not kept.
    pub fn state(&self) -> &Value {
        self.state.as_deref().unwrap_or(&Value::Null)
    }

    /// The run's params, an object.
    pub fn params(&self) -> &Value {
        &self.seat.run.facts.params
    }

    /// The bound of this item on the boot clock; the run's where the item has none.
    pub fn deadline(&self) -> Option<Boot> {
        self.seat.slot.deadline().or(self.seat.run.deadline)
    }

    /// Id of the run.
    pub fn run(&self) -> &str {
        &self.seat.run.id
    }

    /// Name of the job.
    pub fn job(&self) -> &str {
        &self.seat.run.job
    }

    /// Name of the stage.
    pub fn stage(&self) -> &str {
        &self.seat.stage
    }

    /// The same over retries and resume: for services that must do a thing once.
    pub fn idempotency_key(&self) -> String {
        self.seat.idempotency_key(self.key.as_str(), self.action_place, self.value_place)
    }

    /// Waits on the clock of the run: real, or simulated in a test. The time counts as work.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn sleep(&self, duration: Duration) {
        self.world().sleep(duration).await;
    }

    /// Waits until a call through a service of the job may leave: its rate, then its limit of calls in flight, shared with
    /// every `Http` of the run. The wait is no work: other items have the work permit meanwhile. Dropping what it gives
    /// returns the place in flight.
    ///
    /// # Errors
    /// When the job has no such service, or the item's deadline leaves no time to wait for its rate.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back; nothing is counted. A handler that stops waiting so should end:
    /// it has no work permit any more, and goes on beside those that have one.
    pub async fn admit(&self, service: &str) -> Result<Admitted, CallError> {
        let found = self.seat.run.services.get(service);
        let found = found.ok_or_else(|| CallError::give_up(format!("the job has no service `{service}`")))?;
        found.admit(&self.seat.slot).await.map_err(|_| {
            CallError::give_up(format!(
                "the item's deadline leaves no time to wait for the rate of service `{service}`"
            ))
        })
    }

    /// Clocks, threads and randomness of the run.
    pub fn world(&self) -> &World {
        self.seat.slot.world()
    }
}

impl CallError {
    /// A failure that the stage may repeat.
    pub fn retry(message: impl Into<String>) -> CallError {
        CallError { message: message.into(), retry: true }
    }

    /// A failure that is of no use to repeat.
    pub fn give_up(message: impl Into<String>) -> CallError {
        CallError { message: message.into(), retry: false }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandlerError::Twice(name) => write!(f, "there is a handler named `{name}` already: give each its own name"),
            HandlerError::Name(name) => {
                write!(f, "{name:?} is no name of a handler: use letters, digits, `-`, `_` and `.`")
            }
        }
    }
}

impl std::error::Error for HandlerError {}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

struct CallAction {
    name: String,
    handler: Handler,
    args: Vec<(String, Tree)>,
}

/// See [`super::check`].
pub(super) fn check(spec: &CallSpec, path: &str, place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let handler = place.handlers.0.get(&spec.handler).cloned();
    if handler.is_none() {
        let help = match closest(&spec.handler, place.handlers.names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "the program that embeds lamplighter registers it: `Handlers::new().add(..)`".to_owned(),
        };
        let message = format!("there is no handler named `{}`", spec.handler);
        checker.error(&format!("{path}.handler"), message, Some(&help));
    }
    let args: Vec<Option<(String, Tree)>> = spec
        .args
        .iter()
        .flat_map(|args| &args.0)
        .map(|(name, value)| Some((name.clone(), Tree::check(&value.0, &format!("{path}.args[{name:?}]"), checker)?)))
        .collect();
    let args = args.into_iter().collect::<Option<Vec<_>>>()?;
    let gives = Gives::named(spec.into.as_ref(), false);
    let action = CallAction { name: spec.handler.clone(), handler: handler?, args };
    Some(Checked { kind: "Call", action: Box::new(action), gives, writes: false })
}

fn call(cx: &ItemContext, facts: &Facts, args: Option<Arc<Value>>) -> Call {
    Call {
        value: facts.value.clone(),
        key: facts.key.clone(),
        item: (!Arc::ptr_eq(&facts.item, &facts.value)).then(|| facts.item.clone()),
        args,
        state: (!facts.state.is_null()).then(|| facts.state.clone()),
        attempt: cx.attempt,
        action_place: cx.action_place,
        value_place: cx.value_place,
        seat: cx.seat.clone(),
    }
}

impl Action for CallAction {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        if self.args.is_empty() {
            return (self.handler)(&self.name, call(cx, facts, None), out);
        }
        Box::pin(async move {
            let mut args = serde_json::Map::new();
            for (name, tree) in &self.args {
                args.insert(name.clone(), tree.render(cx, facts, "args").await?);
            }
            (self.handler)(&self.name, call(cx, facts, Some(Arc::new(Value::Object(args)))), out).await
        })
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        let mut args = serde_json::Map::new();
        for (name, tree) in &self.args {
            match tree.preview(facts, "args") {
                Ok(value) => args.insert(name.clone(), value),
                Err(failure) => return Some(Err(failure)),
            };
        }
        Some(Ok(files::one_line(&format!("Call {} {}", self.name, Value::Object(args)))))
    }
}
