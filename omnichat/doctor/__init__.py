"""What a machine has and lacks for omnichat, and for one recipe, each with its remedy: `python -m omnichat.doctor`.

`findings`   what a finding is; what this machine has, whatever is trained
`computing`  GPUs, attention kernels, and the compilers that some settings call
`this_run`   what one config needs of it
"""
