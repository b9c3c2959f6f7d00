"""What people see: the live terminal and the verdict. They read events and stored verdicts, never the run."""
