//! Is this body ours?
