//! Load generator and comparison runs
