"""Networks: timm names with VCReg, transformers classifiers, the CIFAR ResNet, and where their weights are found."""
