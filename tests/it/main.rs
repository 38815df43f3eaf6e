//! Tests through the public surfaces of the product: one module for each.

mod engine;
