//! One run as a timeline, with counts, what is missing and why, and its items.

use super::{Form, Reader, Runs, Unanswered, account, outline, tell};
use crate::{
    limits::PAGE_ROWS,
    report,
    run::Outline,
    store::{RowEnd, RowFilter, RowHead, RowQuery, RunStore},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Which run is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowQuestion {
    /// Its id, or a job: its last run.
    pub run: String,
    /// Which of its items are listed as well.
    pub items: Option<Items>,
    /// Times in UTC, not in the job's zone.
    pub utc: bool,
}

/// Which items are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Items {
    /// Those that are missing.
    Missing,
    /// All.
    All,
}

impl Runs<'_> {
    /// Shows a run. Its items, which may be many, come page by page.
    ///
    /// # Errors
    /// When there is no such run, the state cannot be read, or the answer is not taken.
    pub async fn show<E>(
        &self,
        question: &ShowQuestion,
        form: Form,
        mut reader: impl AsyncFnMut(super::Piece) -> Result<(), E>,
    ) -> Result<(), Unanswered<E>> {
        let details = self.find(&question.run).await?;
        let outline = outline(&details, question.utc);
        let account = account(self.world, self.state, &details, &outline).await?;
        let rows = self.state.rows(&details.head.run);
        if form.json {
            let text = account.json().to_string();
            let Some(items) = question.items else { return tell(&mut reader, format!("{text}\n")).await };
            // A field of the object.
            tell(&mut reader, format!("{},\"items\":[", text.trim_end_matches('}'))).await?;
            let mut comma = "";
            each_page(&rows, items, &mut reader, |page| {
                let mut text = String::new();
                for row in page {
                    text.push_str(comma);
                    text.push_str(&json_of(row, &outline));
                    comma = ",";
                }
                text
            })
            .await?;
            return tell(&mut reader, "]}\n".to_owned()).await;
        }
        let look = form.look();
        tell(&mut reader, report::account(&account, look)).await?;
        let Some(items) = question.items else { return Ok(()) };
        if !account.has_rows {
            return tell(&mut reader, "\nits items are not stored any more\n".to_owned()).await;
        }
        tell(&mut reader, "\n".to_owned()).await?;
        each_page(&rows, items, &mut reader, |page| {
            let row = |row: &RowHead| {
                let stage = outline.name(row.stage)?;
                let (missing, end) = end_of(row);
                let message = row.message.as_deref().unwrap_or_default();
                Some(report::item_row(look, stage, &row.key, (missing, &end), row.attempts, row.took_ms, message))
            };
            report::table(&[], &page.iter().filter_map(row).collect::<Vec<_>>(), &[3, 4])
        })
        .await
    }
}

async fn each_page<E>(
    rows: &RunStore,
    items: Items,
    reader: &mut impl Reader<E>,
    mut each: impl FnMut(&[RowHead]) -> String,
) -> Result<(), Unanswered<E>> {
    let filter = if items == Items::All { RowFilter::All } else { RowFilter::Missing };
    let mut after = None;
    loop {
        let query = RowQuery { filter, after: after.take(), limit: PAGE_ROWS, ..RowQuery::default() };
        let page = rows.row_heads(query).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some((last.stage, last.lineage.clone()));
        tell(reader, each(&page)).await?;
    }
}

fn json_of(row: &RowHead, outline: &Outline) -> String {
    let (missing, class) = end_of(row);
    let class = missing.then_some(class);
    let stage = outline.name(row.stage);
    let item = json!({
        "stage": stage, "key": row.key, "outcome": outcome_of(row), "class": class, "attempts": row.attempts,
        "took_ms": row.took_ms, "message": row.message, "pass": row.pass,
    });
    item.to_string()
}

/// Whether the item is missing, and the text that says how it ended.
fn end_of(row: &RowHead) -> (bool, String) {
    match row.end {
        RowEnd::Done(outcome) => (outcome.is_missing(), outcome.class_text()),
        _ => (false, outcome_of(row).to_owned()),
    }
}

fn outcome_of(row: &RowHead) -> &'static str {
    match row.end {
        RowEnd::Done(outcome) => outcome.name(),
        RowEnd::Started => "started",
        RowEnd::Retry { .. } => "waiting",
    }
}
