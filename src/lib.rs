//! outgrow
