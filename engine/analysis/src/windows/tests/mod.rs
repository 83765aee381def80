//! What windows do, told by small examples; `against_naive` and `splits` tell it of random rows.

mod examples;
mod harness;
