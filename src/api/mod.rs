//! How others talk to a daemon: a Unix stream socket in the folder of its state, which only its user can reach.
//!
//! A connection is one [`Request`], a line of JSON, and its answer, lines of JSON: each is an [`Answer`]. The last one of a
//! whole answer is none of [`Answer::is_more`]; a connection that ends before it was cut off. A request cannot carry a
//! definition: only jobs that the daemon watches are run.
//!
//! Nobody who connects holds up the daemon or anybody else: everything is bounded (`API_*` in [`crate::limits`]), where a run
//! stands is told by snapshots, of which the latest wins, and lines of its log that find no room are counted.

mod client;
mod protocol;
mod serve;
mod socket;

pub use client::{Answers, Client};
pub use protocol::{Answer, Begun, Follow, Request, Whereabouts};
pub use serve::Server;
pub use socket::{SOCKET, bind};
