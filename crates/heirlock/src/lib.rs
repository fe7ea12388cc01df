//! The one library behind the `heirlock` program.
