//! x
/// x
#[derive(Debug)] pub struct SimVfs;
