//! Policy: (policy, charges, intent, approvals, now) to verdict; bounds.
