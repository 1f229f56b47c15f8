//! The format held from outside: golden dumps, every cut, every flipped bit, and seeded round trips.

mod damage;
mod golden;
mod round_trip;
mod samples;
