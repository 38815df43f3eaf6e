//! The one integration binary: a module for each surface. They use the public API, or the program itself.

mod cli;
mod documents;
mod samples;
mod signals;
mod tidy;
mod util;
