//! Actions as a job runs them: read from RON, checked, then run on a real world with real files and processes.

mod children;
mod computing;
mod inputs;
mod outputs;
mod sql;

use super::{
    Action, ActionSpec, Checked, Handed, Handlers, ItemContext, Leftovers, Out, Outputs, Place, RunContext, Stop, check,
};
use crate::{
    flow::Slot,
    item::{Class, Failure, Key, Lineage, Value},
    lang::{Checker, Facts, Finding, Group, Rows, RunFacts, Scope, Secret},
    world::World,
};
use serde_json::json;
use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc, time::Duration};

/// A run of one job in a folder of its own.
struct Bench {
    dir: tempfile::TempDir,
    executor: Arc<async_executor::Executor<'static>>,
    run: Arc<RunContext>,
    facts: Arc<RunFacts>,
    handlers: Handlers,
    source: bool,
    gather: bool,
    after_jq: bool,
}

/// What an action gave.
#[derive(Default)]
struct Given {
    values: Vec<Value>,
    bad: Vec<Failure>,
    most: Option<usize>,
    max: Option<u64>,
}

impl Out for Given {
    fn hand(&mut self, value: Arc<Value>) -> Handed<'_> {
        if self.most.is_some_and(|most| self.values.len() >= most) {
            return Handed::now(Err(Stop::given_up(Class::TooLarge, "too many")));
        }
        self.values.push(Arc::unwrap_or_clone(value));
        Handed::now(Ok(()))
    }

    fn bad(&mut self, failure: Failure) -> Handed<'_> {
        self.bad.push(failure);
        Handed::now(Ok(()))
    }

    fn response(&mut self, _head: Arc<Value>) {}

    fn max_value(&self) -> u64 {
        self.max.unwrap_or(10_000)
    }
}

/// A group of values in memory.
struct Members(Vec<Value>);

impl Group for Members {
    fn items(&self, _stage: Option<&str>) -> Result<Rows, String> {
        Ok(Box::new(self.0.clone().into_iter().map(Ok)))
    }

    fn failures(&self) -> Rows {
        Box::new(std::iter::empty())
    }

    fn counts(&self) -> Arc<Value> {
        Arc::new(json!({}))
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with_grace(Duration::from_secs(30))
    }

    fn with_grace(grace: Duration) -> Bench {
        let executor = Arc::new(async_executor::Executor::new());
        Bench::on(World::real(executor.clone()), executor, grace)
    }

    fn on(world: World, executor: Arc<async_executor::Executor<'static>>, grace: Duration) -> Bench {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("out");
        let facts = Arc::new(RunFacts {
            params: json!({"n": 3}),
            run: json!({"id": "run-1", "date": "2026-05-01"}),
            secrets: BTreeMap::from([("token".to_owned(), Secret::new("canary"))]),
        });
        // Processes of a run are found by its id: each test has its own.
        let id = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        let run = RunContext {
            world: world.clone(),
            id: id.clone(),
            chain: id.clone(),
            job: "probe".into(),
            facts: facts.clone(),
            deadline: None,
            grace,
            zone: jiff::tz::TimeZone::get("Asia/Shanghai").expect("a zone"),
            journal: crate::action::Journal::new(world.clone(), &id, "probe", false),
            outputs: Outputs::new(world.clone(), out.clone(), &id),
            base_dir: dir.path().to_owned(),
            services: BTreeMap::new(),
            instance: "test".into(),
            environment: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/root".into())]),
            leftovers: Leftovers::new(world, grace, &id),
            temporary: out,
        };
        Bench {
            dir,
            executor,
            run: Arc::new(run),
            facts,
            handlers: Handlers::new(),
            source: false,
            gather: false,
            after_jq: false,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        std::fs::write(path, text).expect("writes");
    }

    fn get(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Reads and checks an action; what was found, and the action where there was no error.
    fn check(&self, ron: &str) -> (Option<Checked>, Vec<Finding>) {
        let spec: ActionSpec = ron::Options::default()
            .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
            .from_str(ron)
            .unwrap_or_else(|error| panic!("{ron}: {error}"));
        let params = self.facts.params.clone();
        let scope = match (self.source, self.gather) {
            (true, _) => Scope::source(params),
            (_, true) => Scope::gather(params),
            _ => Scope::worker(params),
        };
        let mut checker = Checker::new(self.dir.path(), scope);
        let place = Place {
            gather: self.gather,
            source: self.source,
            after_jq: self.after_jq,
            handlers: &self.handlers,
            services: &[],
        };
        let checked = check(&spec, "run[0]", &place, &mut checker);
        let ok = checker.is_ok();
        let findings = checker.into_findings();
        assert_eq!(checked.is_some(), ok, "an action exists exactly when nothing is wrong: {ron} {findings:?}");
        (checked, findings)
    }

    fn action(&self, ron: &str) -> Box<dyn Action> {
        let (checked, findings) = self.check(ron);
        checked.unwrap_or_else(|| panic!("{ron}: {findings:?}")).action
    }

    /// The first finding as text.
    fn finding(&self, ron: &str) -> String {
        let (_, findings) = self.check(ron);
        let finding = findings.first().unwrap_or_else(|| panic!("nothing found in {ron}"));
        format!(
            "{:?} {}: {} | {}",
            finding.level,
            finding.path,
            finding.message,
            finding.help.as_deref().unwrap_or("-")
        )
    }

    fn item(&self, key: &str) -> ItemContext {
        let slot = Arc::new(Slot::free(self.run.world.clone()));
        let mut cx = ItemContext::new(self.run.clone(), slot, "stage".into(), 1);
        cx.key = Some(Key::parse(key).expect("a key"));
        cx.lineage = Lineage::listed(0, key.bytes().map(u64::from).sum());
        cx
    }

    fn facts(&self, value: Value) -> Facts {
        Facts::new(Arc::new(value), Key::parse("k").expect("a key"), self.facts.clone())
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        futures_lite::future::block_on(self.executor.run(future))
    }

    /// Checks and runs an action on a value.
    fn run(&self, ron: &str, value: Value) -> (Given, Result<(), Stop>) {
        self.run_with(ron, &self.item("k"), &self.facts(value), Given::default())
    }

    fn run_with(&self, ron: &str, cx: &ItemContext, facts: &Facts, mut given: Given) -> (Given, Result<(), Stop>) {
        let action = self.action(ron);
        let result = self.block_on(action.run(cx, facts, &mut given));
        (given, result.map_err(|stop| *stop))
    }

    fn values(&self, ron: &str, value: Value) -> Vec<Value> {
        let (given, result) = self.run(ron, value);
        assert_eq!(result, Ok(()), "{ron}");
        assert!(given.bad.is_empty(), "{ron}: {:?}", given.bad);
        given.values
    }

    /// Class, message and whether the stage may not retry it.
    fn failure(&self, ron: &str, value: Value) -> (Class, String, bool) {
        match self.run(ron, value).1 {
            Err(Stop::Failed { failure, given_up }) => (failure.class, failure.message, given_up),
            other => panic!("{ron}: {other:?}"),
        }
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}
