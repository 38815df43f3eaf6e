//! The one integration binary: a module for each surface. They use the public API, or the program itself.

mod check;
mod documents;
mod engine;
mod examples;
mod memory;
mod schema;
mod tidy;
