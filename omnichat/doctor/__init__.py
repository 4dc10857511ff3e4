"""What a machine has and lacks for omnichat, and for one recipe, each with its remedy: `python -m omnichat.doctor`.

`findings`   what a finding is; what this machine has, whatever is trained
`this_run`   what one config needs of it
"""
