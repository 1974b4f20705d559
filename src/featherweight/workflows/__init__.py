"""One function a shell verb, each in its own file: load -> do -> save -> evaluate -> report; and
`doctor`.

Nothing is imported here, so that `doctor` still runs where another workflow's needs are broken.
"""
