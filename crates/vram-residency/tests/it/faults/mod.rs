//! Whatever fails, at whatever call: the state is as before, or the error says what is not.

mod blocks;
mod devices;
mod single;
