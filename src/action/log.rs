//! `Log`: writes a line to the log.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, files};
use crate::{
    item::Failure,
    lang::{Checker, Facts, Flavor, Template},
    world::BoxFuture,
};
use ::log::Level;

crate::spec! {
    /// Writes a line to the log; the value passes on.
    pub struct LogSpec as "Log" {
        /// The line, a template.
        message: String, example "\"{{ key }} has {{ value.steps }} steps\"";
    }
}

struct Log {
    message: Template,
}

/// See [`super::check`].
pub(super) fn check(spec: &LogSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let at = format!("{path}.message");
    let message = checker.text(&at, &spec.message, Flavor::Text)?;
    if let Some(secret) = message.secrets_used().first() {
        checker.error(&at, format!("the secret `{secret}` would stand in the log"), Some("leave it out"));
        return None;
    }
    Some(Checked { kind: "Log", action: Box::new(Log { message }), gives: Gives::PassesOn, writes: false })
}

impl Action for Log {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, _out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let message = files::one_line(&files::render(cx, &self.message, facts, "message").await?);
            cx.say("lamplighter::job", Level::Info, &message);
            Ok(())
        })
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        let message = files::preview(&self.message, facts, "message");
        Some(message.map(|message| format!("Log {}", files::quoted(&message))))
    }
}
