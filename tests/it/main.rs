//! The one integration binary: a module for each surface. They use the public API, or the program itself.

mod check;
mod documents;
mod memory;
mod examples;
mod schema;
mod tidy;
