//! Routes, grouped by who calls: clients upgrading here ([`upgrade`]).

pub mod upgrade;
