//! What an OCF resource agent answers by its exit code.

/// The codes that are used here (OCF Resource Agent API 1.1, "Return Codes"; Pacemaker Explained, "OCF Return Codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done; or the resource is active.
    Success,
    /// It failed: Pacemaker tries again, here or on another node.
    Failed,
    /// The configuration of this node can't be: Pacemaker tries other nodes.
    Arguments,
    /// There is no such action.
    Unimplemented,
    /// The configuration of the resource can't be, on any node.
    Configured,
    /// The resource is not active, and all is well with that.
    NotRunning,
    /// The resource is active, and needs somebody's attention: nothing is stopped or moved for it.
    Degraded,
}

impl Code {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Arguments => 2,
            Self::Unimplemented => 3,
            Self::Configured => 6,
            Self::NotRunning => 7,
            Self::Degraded => 190,
        }
    }
}

/// The answer of an action: its code, and why where that is not plain. crm_mon shows the first hundred characters, so the cause
/// comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: Code,
    pub(crate) why: Option<String>,
}

impl Verdict {
    /// Done, or active.
    pub(crate) fn success() -> Self {
        Self { code: Code::Success, why: None }
    }

    /// Another code, and its reason.
    pub(crate) fn of(code: Code, why: impl Into<String>) -> Self {
        Self { code, why: Some(why.into()) }
    }

    /// It failed.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::of(Code::Failed, why)
    }
}

/// The reason in one line, the cause first: lines that are set in say what is missing, and stand before the sentence that they
/// belong to.
pub(crate) fn in_one_line(why: &str) -> String {
    let (causes, sentences): (Vec<&str>, Vec<&str>) =
        why.lines().filter(|line| !line.trim().is_empty()).partition(|line| line.starts_with("  "));
    let sentences = sentences.iter().map(|line| line.trim_end_matches(':'));
    causes.iter().map(|line| line.trim()).chain(sentences).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_begins_with_its_cause() {
        assert_eq!(in_one_line("nfs-a owns homes"), "nfs-a owns homes");
        let refused = "homes can't be adopted here now; nothing was changed:\n  /srv/homes is not mounted\n  it is not \
                       exported\n--force adopts all the same, and locks may be lost";
        assert_eq!(
            in_one_line(refused),
            "/srv/homes is not mounted; it is not exported; homes can't be adopted here now; nothing was changed; --force adopts \
             all the same, and locks may be lost"
        );
    }
}
