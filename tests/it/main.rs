//! The one integration binary: a module for each surface. They use the public API, or the program itself.

mod documents;
mod hostile;
mod tidy;
