//! `Render`: writes a text, a page or a mail from a template file.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, Stop, compute::Lost, files};
use crate::{
    item::{Class, Failure, Value},
    lang::{Checker, Facts, Template},
    world::BoxFuture,
};

crate::spec! {
    /// Writes a text from a template: into a file (`to`), or as the value.
    pub struct RenderSpec as "Render" {
        /// The template file, relative to the job file. In one named `.html` values are escaped.
        template: String, example "\"nightly-vitals/report.html\"";
        /// File that it writes, a template; below the output folder.
        to: Option<String>, example "\"{{ run.night }}/vitals.html\"";
        /// Puts the text into this field of the value.
        into: Option<String>, example "\"mail\"";
    }
}

struct Render {
    name: String,
    template: Template,
    to: Option<Template>,
    lost: Lost,
}

/// See [`super::check`].
pub(super) fn check(spec: &RenderSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let template = checker.template_file(&format!("{path}.template"), &spec.template);
    let to = spec.to.as_ref().map(|to| files::check_output(&format!("{path}.to"), to, checker));
    if spec.to.is_some() && spec.into.is_some() {
        checker.error(&format!("{path}.into"), "with `to` the value passes on", Some("leave out `to` or `into`"));
        return None;
    }
    let gives = match (&spec.to, &spec.into) {
        (Some(_), _) => Gives::PassesOn,
        (None, Some(name)) => Gives::Into { name: name.clone(), list: false },
        (None, None) => Gives::Values,
    };
    let to = match to {
        Some(to) => Some(to?),
        None => None,
    };
    let writes = to.is_some();
    let action = Render { name: spec.template.clone(), template: template?, to, lost: Lost::default() };
    Some(Checked { kind: "Render", action: Box::new(action), gives, writes })
}

impl Action for Render {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let (template, seen) = (self.template.clone(), facts.clone());
            let mut computing = self.lost.start::<(), _>(cx, move |_| template.render(&seen))?;
            while computing.next().await?.is_some() {}
            let text = computing
                .result()
                .map_err(|error| Stop::given_up(Class::Data, format!("`{}` does not render: {error}", self.name)))?;
            let Some(to) = &self.to else { return out.give(Value::String(text)).await };
            let path = files::render(cx, to, facts, "to").await?;
            let mut file = cx.run.outputs.create(cx, &path).await?;
            file.write(text.into_bytes()).await?;
            file.commit().await.map(drop)
        })
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        Some(match &self.to {
            Some(to) => files::preview(to, facts, "to")
                .map(|path| format!("Render {} to {}", files::quoted(&self.name), files::quoted(&path))),
            None => Ok(format!("Render {}", files::quoted(&self.name))),
        })
    }
}
